"""What a service outside XOS does with a token: check.py ISSUER AUDIENCE <token

The issuer is the only one whose tokens it takes; it finds the issuer's keys by itself, over https.
Prints the claims as JSON, or says why it refuses.
"""

import json
import sys

import scitokens

# What the WLCG profile and AARC-G069 add, which the service reads and does not decide by here.
CLAIMS = ("auth_time", "wlcg.ver", "wlcg.groups", "entitlements", "eduperson_entitlement")
SCOPE = "wlcg.groups"

issuer, audience = sys.argv[1:]
try:
    token = scitokens.SciToken.deserialize(sys.stdin.read().strip())
except Exception as error:  # Whatever it is, the token is not taken.
    sys.exit(f"refused: {type(error).__name__}: {error}")
enforcer = scitokens.Enforcer(issuer, audience)
for claim in CLAIMS:
    enforcer.add_validator(claim, lambda value: True)
if not enforcer.test(token, SCOPE):
    sys.exit(f"refused: {enforcer.last_failure}")
print(json.dumps(dict(token.claims())))
