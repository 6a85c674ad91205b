"""The domain: profiles, terminals, states, couriers, the registry and teams."""
