//! `tideover flush`: every open checkpoint on disk now.

use serde_json::json;

use super::args::Global;
use super::context::Context;
use super::output::{Failure, from_client, print_json, print_line};

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let context = Context::of(global)?;
    let answer = context.ask(&json!({ "type": "flush" })).map_err(from_client)?;
    let flushed = answer["flushed"].as_u64().unwrap_or(0);
    if global.json {
        print_json(&json!({ "schema": "tideover.flush/1", "flushed": flushed }));
    } else {
        print_line(&format!("{flushed} open checkpoint(s) are on disk"));
    }
    Ok(())
}
