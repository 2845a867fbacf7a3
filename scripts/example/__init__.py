"""An order from its price to its parcel, on a server of its own: what `scripts/run` shows."""
