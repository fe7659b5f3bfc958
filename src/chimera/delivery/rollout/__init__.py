"""Rollouts: a change comes to production wave by wave, is watched on both sides, and is kept or taken back."""
