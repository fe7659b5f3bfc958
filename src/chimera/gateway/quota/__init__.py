"""What each agent may use, shared by all gateways: its budget of the day, its calls at once and its calls a minute."""
