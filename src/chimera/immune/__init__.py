"""The immune system: what watches, judges and heals the ecosystem, and the record of what was done."""
