"""Who may do what: Cedar policies, sliced and cached; pure rules around one port to the engine that decides."""
