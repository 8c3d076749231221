//! tideover carries OpenClaw agents over a gateway restart.
