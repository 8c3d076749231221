//! Plans, from what is there to what is done.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::plan::{Given, Plan, Step};
use super::record::fingerprint;
use super::*;

const UNIT: &str = "[Unit]\nDescription=OpenClaw Gateway\n\n[Service]\nExecStart=/n/node --max-old-space-size=8192 \
    /o/dist/index.js gateway --port 1 --verbose\nEnvironment=HOME=/h\nEnvironment=PATH=/n:/bin\n\n[Install]\nWantedBy=default.target\n";
const WRAPPED: &str = "[Service]\nExecStart=/t/tideover gateway --port 1\nEnvironment=HOME=/h\n\
    Environment=PATH=/bin\nEnvironment=OPENCLAW_WRAPPER=/t/tideover\n";
const TIDEOVER: &str = "/t/tideover";

fn content(text: &str) -> Option<Content> {
    Some(Content { text: text.to_owned(), mode: 0o600 })
}

/// A running unit with this file.
fn found(unit: &str) -> Found {
    let dir = PathBuf::from("/h/.config/systemd/user");
    Found {
        unit: "g.service".to_owned(),
        home: "/h".to_owned(),
        state: UnitState {
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            file: "enabled".to_owned(),
            fragment: Some(dir.join("g.service")),
            ..UnitState::default()
        },
        dir,
        fragment: content(unit),
        backup: None,
        drop_in: None,
        report: None,
        foreign: BTreeMap::new(),
        writable: true,
        others: false,
        environment: BTreeMap::new(),
    }
}

/// Everything a plan is made from, owned.
struct Scene {
    found: Found,
    config: Option<Content>,
    record: Option<Record>,
    plugin: bool,
}

impl Scene {
    fn new(unit: &str) -> Self {
        Self { found: found(unit), config: None, record: None, plugin: true }
    }

    fn with<T>(&self, plan: impl FnOnce(Given<'_>) -> T) -> T {
        plan(Given {
            found: &self.found,
            tideover: TIDEOVER,
            config_path: &"/h/.config/tideover/config.toml".into(),
            config: self.config.as_ref(),
            record: self.record.as_ref(),
            record_path: &"/s/tideover/install-unit.json".into(),
            plugin: self.plugin,
        })
    }

    fn install(&self) -> Result<Plan, Refusal> {
        self.with(plan_install)
    }

    fn uninstall(&self) -> Result<Option<Plan>, Refusal> {
        self.with(plan_uninstall)
    }

    /// What the files are after a plan, with the gateway's installer having written the unit `wrapped`.
    fn after(mut self, plan: &Plan, wrapped: &str) -> Self {
        for step in &plan.steps {
            let Step::File(change) = step else { continue };
            let name = change.path.file_name().unwrap().to_str().unwrap();
            let place = match name {
                "config.toml" => &mut self.config,
                "50-tideover.conf" => &mut self.found.drop_in,
                "tideover-report@.service" => &mut self.found.report,
                "g.service" => &mut self.found.fragment,
                other => panic!("{other}"),
            };
            assert!(*place == change.before, "{name} was something else");
            place.clone_from(&change.after);
        }
        self.found.fragment = content(wrapped);
        self.found.backup = content(UNIT);
        self.plugin = false;
        let now = [
            (self.found.unit_path(), self.found.fragment.clone()),
            (self.found.backup_path(), self.found.backup.clone()),
            ("/h/.config/tideover/config.toml".into(), self.config.clone()),
        ];
        self.record = plan.record.clone().map(|record| plan::completed(record, &now));
        self
    }
}

fn words(plan: &Plan) -> Vec<String> {
    let word = |step: &Step| match step {
        Step::File(change) => {
            let name = change.path.file_name().unwrap().to_string_lossy().into_owned();
            if change.after.is_some() { name } else { format!("-{name}") }
        }
        Step::Plugin => "plugin".to_owned(),
        Step::Systemctl(words) | Step::Gateway(words) => words.join(" "),
    };
    plan.steps.iter().map(word).collect()
}

const INSTALLED: [&str; 6] = [
    "stop g.service",
    "config.toml",
    "tideover-report@.service",
    "50-tideover.conf",
    "plugin",
    "gateway install --force --wrapper /t/tideover --port 1",
];

#[test]
fn a_plain_unit_is_stopped_once_and_started_by_the_gateways_installer() {
    let scene = Scene::new(UNIT);
    let plan = scene.install().unwrap();
    assert_eq!(words(&plan), INSTALLED);
    assert_eq!(plan.command, ["/n/node", "--max-old-space-size=8192", "/o/dist/index.js"]);
    let Some(Step::File(drop_in)) = plan.steps.get(3) else { panic!() };
    let text = &drop_in.after.as_ref().unwrap().text;
    assert!(
        text.contains("ExecStart=/t/tideover /o/dist/index.js gateway --port 1 --verbose\n"),
        "{text}"
    );
    assert!(text.contains("Environment=PATH=/n:/bin\n"), "{text}");
}

#[test]
fn a_unit_that_was_down_or_disabled_is_so_afterwards() {
    let mut scene = Scene::new(UNIT);
    scene.found.state.active = "failed".to_owned();
    scene.found.state.file = "disabled".to_owned();
    let plan = scene.install().unwrap();
    assert_eq!(words(&plan)[..5], INSTALLED[1..]);
    assert_eq!(words(&plan)[5..], ["stop g.service", "disable g.service"]);
}

#[test]
fn a_second_time_there_is_nothing_to_do_and_the_users_own_words_stay() {
    let scene = Scene::new(UNIT);
    let plan = scene.install().unwrap();
    let scene = scene.after(&plan, WRAPPED);
    let again = scene.install().unwrap();
    assert!(again.steps.is_empty() && again.record.is_none(), "{:?}", words(&again));
    // A port that the gateway changed goes into the drop-in.
    let mut moved = scene;
    moved.found.fragment = content(&WRAPPED.replace("--port 1", "--port 2"));
    let plan = moved.install().unwrap();
    assert_eq!(
        words(&plan),
        ["stop g.service", "50-tideover.conf", "daemon-reload", "start g.service"]
    );
    // A plugin that is to be updated needs no restart: the gateway notices by itself.
    moved.found.fragment = content(WRAPPED);
    moved.plugin = true;
    assert_eq!(words(&moved.install().unwrap()), ["plugin"]);
}

#[test]
fn what_was_there_comes_back() {
    let scene = Scene::new(UNIT);
    let plan = scene.install().unwrap();
    let mut scene = scene.after(&plan, WRAPPED);
    scene.plugin = true;
    let plan = scene.uninstall().unwrap().unwrap();
    let want = [
        "stop g.service",
        "plugin",
        "g.service",
        "-g.service.bak",
        "-config.toml",
        "-50-tideover.conf",
        "-tideover-report@.service",
        "daemon-reload",
        "start g.service",
    ];
    assert_eq!(words(&plan), want);
    let Some(Step::File(unit)) = plan.steps.get(2) else { panic!() };
    assert!(unit.after == content(UNIT));
    // Another unit of this user that is under tideover needs configuration and report unit.
    scene.found.others = true;
    let plan = scene.uninstall().unwrap().unwrap();
    assert!(
        !words(&plan).iter().any(|word| word.contains("config.toml") || word.contains("report"))
    );
}

#[test]
fn a_unit_that_the_gateway_wrote_anew_is_written_anew_without_us() {
    let scene = Scene::new(UNIT);
    let plan = scene.install().unwrap();
    let mut scene = scene.after(&plan, WRAPPED);
    scene.found.fragment = content(&WRAPPED.replace("PATH=/bin", "PATH=/new"));
    let plan = scene.uninstall().unwrap().unwrap();
    assert_eq!(words(&plan).last().unwrap(), "gateway install --force --port 1");
    let Some(Step::File(unit)) = plan.steps.get(1) else { panic!() };
    let text = &unit.after.as_ref().unwrap().text;
    assert!(
        text.contains(
            "ExecStart=/n/node --max-old-space-size=8192 /o/dist/index.js gateway --port 1\n"
        ),
        "{text}"
    );
    assert!(text.contains("PATH=/new") && !text.contains("WRAPPER"), "{text}");
    // An installation in between does not make the old bytes the ones to go back to.
    let other = scene.found.drop_in.take();
    let again = scene.install().unwrap();
    assert!(!again.record.as_ref().unwrap().after.contains_key(&scene.found.unit_path()));
    scene.found.drop_in = other;
}

#[test]
fn without_a_record_the_unit_still_comes_free() {
    let scene = Scene::new(UNIT);
    let plan = scene.install().unwrap();
    let mut scene = scene.after(&plan, WRAPPED);
    scene.record = None;
    let plan = scene.uninstall().unwrap().unwrap();
    assert!(words(&plan).contains(&"gateway install --force --port 1".to_owned()));
    assert!(Scene::new(UNIT).uninstall().unwrap().is_none(), "never installed");
}

#[test]
fn a_run_that_was_cut_short_keeps_the_first_record() {
    let scene = Scene::new(UNIT);
    let plan = scene.install().unwrap();
    let first = plan.record.clone().unwrap();
    let mut scene = scene;
    scene.record = Some(first);
    scene.found.fragment = content(WRAPPED);
    let plan = scene.install().unwrap();
    let before = plan.record.unwrap().before;
    assert!(before.get(&scene.found.unit_path()) == Some(&content(UNIT)));
}

#[test]
fn anothers_wrapper_gives_way_where_the_configuration_names_the_gateway() {
    let theirs = WRAPPED.replace("/t/tideover", "/w/other");
    let mut scene = Scene::new(&theirs);
    assert!(matches!(scene.install(), Err(Refusal::NoCommand { .. })));
    scene.config = content("[gateway]\ncommand = [\"/n/node\", \"/o/dist/index.js\"]\n");
    let plan = scene.install().unwrap();
    assert!(
        plan.unit_diff.contains("-Environment=OPENCLAW_WRAPPER=/w/other"),
        "{}",
        plan.unit_diff
    );
    assert!(!words(&plan).contains(&"config.toml".to_owned()), "the configuration is kept");
}

#[test]
fn refusals() {
    let refusal = |change: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::new(UNIT);
        change(&mut scene);
        scene.install().err().map(|refusal| refusal.to_string()).unwrap_or_default()
    };
    let drop_in = |name: &str, text: &str| {
        let (name, text) = (PathBuf::from(format!("/h/d/{name}")), text.to_owned());
        move |scene: &mut Scene| {
            scene.found.foreign.insert(name.clone(), text.clone());
        }
    };
    type Change<'c> = Box<dyn Fn(&mut Scene) + 'c>;
    let table: Vec<(Change<'_>, &str)> = vec![
        (
            Box::new(|s| {
                s.found.state.load = "not-found".into();
                s.found.fragment = None;
            }),
            "openclaw gateway install",
        ),
        (Box::new(|s| s.found.state.load = "masked".into()), "systemctl --user unmask g.service"),
        (Box::new(|s| s.found.state.load = "bad-setting".into()), "systemd-analyze --user verify"),
        (
            Box::new(|s| s.found.state.fragment = Some("/etc/systemd/user/g.service".into())),
            "/etc/systemd/user",
        ),
        (
            Box::new(|s| {
                if let Some(unit) = &mut s.found.fragment {
                    unit.mode = 0o664;
                }
            }),
            "chmod go-w",
        ),
        (Box::new(|s| s.found.writable = false), "chmod u+w /h/.config/systemd/user"),
        (
            Box::new(drop_in("10-a.conf", "[Service]\nExecStart=\nExecStart=/x\n")),
            "sets ExecStart=",
        ),
        (Box::new(drop_in("60-a.conf", "[Service]\nType=simple\n")), "sets Type="),
        (Box::new(drop_in("60-a.conf", "[Service]\nKillMode=process\n")), "sets KillMode="),
        (Box::new(drop_in("10-a.conf", "[Service]\nType=simple\n")), ""),
        (Box::new(drop_in("60-a.conf", "[Service]\nType=notify\nEnvironment=A=b\n")), ""),
        (
            Box::new(|s| s.found.fragment = content("[Service]\nExecStart=/bin/sh -c x\n")),
            "openclaw gateway install --force",
        ),
        (
            Box::new(|s| {
                s.found.fragment = content("[Service]\nExecStart=/n ${X}/index.js gateway\n")
            }),
            "variable",
        ),
        (Box::new(|s| s.found.drop_in = content("# mine\n")), "mv /h/.config"),
        (Box::new(|s| s.config = content("[gateway\n")), "TOML"),
    ];
    for (change, want) in table {
        let said = refusal(&change);
        assert!(said.contains(want) && said.is_empty() == want.is_empty(), "{want:?}: {said:?}");
    }
}

#[test]
fn the_record_reads_back() {
    let plan = Scene::new(UNIT).install().unwrap();
    let record = plan.record.unwrap();
    assert!(Record::parse(&record.text()).as_ref() == Some(&record));
    assert!(
        Record::parse("{}").is_none()
            && Record::parse(&record.text().replace("unit/1", "unit/2")).is_none()
    );
    assert_ne!(fingerprint(None), fingerprint(content("").as_ref()));
}
