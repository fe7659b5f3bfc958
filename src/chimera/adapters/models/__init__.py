"""Where answers come from: OpenAI-compatible endpoints, and the bundled model behind one."""
