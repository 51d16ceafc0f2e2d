"""The verdict: pure functions of recorded attempts and a policy.

Nothing in here reads a clock, a network or an environment. Read `targets`, then `document`,
then `expect`, then `judge`.
"""
