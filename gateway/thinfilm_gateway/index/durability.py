"""Whether what the database has committed outlives a power cut."""

from typing import Any

from sqlalchemy import Connection, text

_KEEP_COMMITS = """
SELECT set_config('synchronous_commit', CASE setting WHEN 'off' THEN 'on' ELSE setting END, false)
FROM current_setting('synchronous_commit') AS setting
"""

_AFTER_A_POWER_CUT = {
    "fsync": "what was acknowledged can be lost, and the whole index with it",
    "full_page_writes": "the index can be damaged",
}
"""Settings of a PostgreSQL server that no connection can set for itself, and what can be where they are off."""


def keep_commits(driver_connection: Any) -> None:
    """Let a connection to PostgreSQL wait for the disk at each commit, whatever server, database or role say.

    What is stronger than `on` stays: then a standby is waited for, too. Set for the session, it outlives a reload.
    """
    before = driver_connection.autocommit
    driver_connection.autocommit = True
    driver_connection.execute(_KEEP_COMMITS)
    driver_connection.autocommit = before


def complaints(connection: Connection) -> dict[str, str]:
    """Return, by its name, a sentence with the mend for each setting by which a power cut can take what was committed.

    On SQLite there is none: each connection of ours sets what it needs.
    """
    if connection.dialect.name != "postgresql":
        return {}
    off = connection.scalars(text("SELECT name FROM pg_settings WHERE setting = 'off' ORDER BY name"))
    return {
        name: f"PostgreSQL runs with {name} = off: after a power cut {_AFTER_A_POWER_CUT[name]}; set it to on in "
        "postgresql.conf and reload the server."
        for name in off
        if name in _AFTER_A_POWER_CUT
    }
