"""Holds tool calls: rules, approval, execution on MCP servers, result."""
