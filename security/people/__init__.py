"""People and systems: who has an account, how they prove it, and what shows it afterwards.

Roles and what they may do are ``security.policy``'s; here is only who somebody is.
"""
