"""What travels between clients, services and the log. Imports msgspec only."""
