"""`agentd mcp`: the Model Context Protocol over stdin and stdout, for one agent. It knows the protocol and no tool."""
