"""The ecosystem's mind: one module or package for each component of JAEGIS."""
