"""The fictional world: two portals, their calls, recordings and the truth about each dialog, as data beside this file."""

from dialog_assets.sandbox.world.loader import WorldError, check_against_portals, load_world

__all__ = ["WorldError", "check_against_portals", "load_world"]
