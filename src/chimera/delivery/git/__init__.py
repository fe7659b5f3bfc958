"""The catalogue in Git: how a repository is laid out, how its branch is protected, how a branch becomes live.

All rules here are pure. What reads repositories is `chimera.adapters.git`.
"""
