"""A recorded run replayed under other conditions."""
