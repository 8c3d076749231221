//! The plugin's files, as built into the program.

/// The plugin's id in OpenClaw's configuration.
pub const PLUGIN_ID: &str = "tideover";

/// One file of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginFile {
    /// Its path below the plugin's directory.
    pub name: &'static str,
    /// Its content.
    pub text: &'static str,
}

macro_rules! plugin_files {
    ($($name:literal),* $(,)?) => {
        &[$(PluginFile {
            name: $name,
            text: include_str!(concat!("../../../packaging/openclaw-plugin/", $name)),
        }),*]
    };
}

/// Every file of the plugin. This list is the only one: a file added to
/// `packaging/openclaw-plugin/` is installed once it stands here.
pub const PLUGIN_FILES: &[PluginFile] = plugin_files![
    "package.json",
    "openclaw.plugin.json",
    "index.js",
    "abort.js",
    "hooks.js",
    "native-queue.js",
    "people.js",
    "queue-watch.js",
    "resume.js",
    "sessions.js",
    "socket.js",
    "state.js",
    "tools.js",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_list_is_complete() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/openclaw-plugin");
        let mut there: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| {
                let code = name.ends_with(".js") || name.ends_with(".json");
                code && !name.ends_with(".test.js")
            })
            .collect();
        let mut listed: Vec<String> = PLUGIN_FILES
            .iter()
            .map(|file| file.name.to_owned())
            .filter(|name| !name.contains('/'))
            .collect();
        there.sort();
        listed.sort();
        assert_eq!(there, listed);
    }

    #[test]
    fn the_id_is_the_one_of_the_plugin() {
        let file = PLUGIN_FILES.iter().find(|file| file.name == "openclaw.plugin.json").unwrap();
        let value: serde_json::Value = serde_json::from_str(file.text).unwrap();
        assert_eq!(value["id"], PLUGIN_ID);
    }
}
