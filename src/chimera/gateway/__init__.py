"""The way of a call: authenticate, admit, route, wake, call the host, meter; and the models beneath the agents."""
