"""Who may ask on the management plane, for what, and of which things.

roles.py      viewer < operator < admin
needs.py      which role each route needs: the one table of it
keys.py       API keys: made, found, revoked; of each the database knows a hash
first_key.py  the key that a new server starts with, and another where it was lost
uses.py       when each key was last used
secrets.py    random tokens, and how they are compared
guard.py      the dependency of every route of operators
routes.py     /api/v1/access: keys over HTTP; schemas.py says what it takes and gives

Devices are known by tokens of their own: `devices/identity.py`.
"""

from server.auth.guard import Credentials, Operator
from server.auth.secrets import new_token, same_secret, token_hash

__all__ = ["Credentials", "Operator", "new_token", "same_secret", "token_hash"]
