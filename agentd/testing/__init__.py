"""What tests of agents and of programs that use agentd need: the scripted agent, fakes of the lowest floor."""
