"""Why a recorded run took as long as it did."""
