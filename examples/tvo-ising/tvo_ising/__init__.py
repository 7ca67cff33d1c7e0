"""A bound and a prior that unibound does not have."""
