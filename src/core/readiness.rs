//! What the service manager is told, and when a gateway counts as frozen. Times are milliseconds of a clock
//! that stands still while the host sleeps.

/// How often a gateway that starts is looked at.
const START_LOOK_MS: u64 = 500;
/// How often a gateway that drains is looked at.
const DRAIN_LOOK_MS: u64 = 5_000;
/// The time that one extension asks for; asked again at every third of it.
const EXTENSION_MS: u64 = 60_000;
/// Beyond this a start is not extended any more, however busy the gateway is; it counts as ready then, because
/// a gateway that lives and only answers its probes otherwise than known must not be kept down for that.
const START_MAX_MS: u64 = 30 * 60_000;
/// Beyond this a drain is not extended any more. The gateway's own longest drain is 315 s.
const DRAIN_MAX_MS: u64 = 6 * 60_000;
/// A gateway that says it has started is believed after this time, whatever its probes say.
const BELIEVED_MS: u64 = 5 * 60_000;
/// A gateway without our plugin that answers no probe either is taken as ready after this time. Until then it
/// has more time as long as it uses any of the processor, which an idle one still does (its timers).
const UNHEARD_MS: u64 = 10 * 60_000;
/// A gateway that says it has started and answers no probe all the same (TLS, a port of its own) is believed
/// after this time.
const UNPROBED_MS: u64 = 30_000;
/// The pauses between two looks at a serving gateway, and the longest that one look takes: an eighth of the
/// watchdog's limit, within these. After five eighths of silence the gateway is given up; the next look ends a
/// quarter later at the latest, so that the evidence has the last eighth.
const WATCH_LOOK_MS: (u64, u64) = (500, 20_000);
/// Longest that one look takes while nobody watches.
const LOOK_MS_MAX: u64 = 4_000;

/// How a gateway answered one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It serves.
    Serving,
    /// It listens and does not serve yet.
    Starting,
    /// It finishes what runs and takes nothing new.
    Draining,
    /// It did not answer in time.
    Silent,
}

/// One look at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// What it answered.
    pub answer: Answer,
    /// Processor time its process has used so far, in clock ticks, where that can be read.
    pub cpu_ticks: Option<u64>,
}

/// How far the gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It does not serve yet.
    Starting,
    /// It has served.
    Serving,
    /// A stop was asked for.
    Stopping,
    /// It did not answer for so long that it is given up: evidence was asked for.
    Frozen,
}

impl Stage {
    /// In one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "ready",
            Self::Stopping => "stopping",
            Self::Frozen => "frozen",
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The gateway was looked at.
    Looked(Look),
    /// The plugin is there: it will say when the gateway has started.
    PluginSeen,
    /// The gateway's own word, through the plugin, that it has started.
    Started,
    /// The gateway listens on another port than thought.
    PortChanged,
    /// A stop was asked for.
    StopBegun,
    /// The user manager or the host goes down: time can no longer be had.
    GoingDown,
    /// The evidence of a frozen gateway is on disk.
    EvidenceKept,
}

/// What the service manager is told, or what else is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// The gateway serves.
    Ready,
    /// The gateway serves by its own word, and no probe reaches it: the watchdog cannot judge it.
    Unprobed,
    /// A probe has reached it after all.
    Probed,
    /// The gateway stops.
    Stopping,
    /// More time, in milliseconds from now.
    Extend(u64),
    /// The watchdog's sign of life.
    Alive,
    /// Write down how the gateway looks, then say [`Event::EvidenceKept`].
    KeepEvidence,
    /// It answers again after evidence was asked for.
    Recovered,
    /// Let the watchdog have it.
    LetGo,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Readiness {
    stage: Stage,
    /// The service manager's limit between two signs of life.
    watchdog_ms: Option<u64>,
    stage_since_ms: u64,
    looked_ms: u64,
    alive_ms: u64,
    extended_ms: Option<u64>,
    before: Option<Look>,
    started_ms: Option<u64>,
    plugin_seen: bool,
    /// Whether it was said that no probe reaches it.
    unprobed: bool,
    /// Whether it ever answered a probe.
    answered: bool,
    going_down: bool,
}

impl Readiness {
    /// For a gateway that was just started. `watchdog_ms` is the service manager's limit.
    #[must_use]
    pub fn new(watchdog_ms: Option<u64>, now_ms: u64) -> Self {
        Self {
            stage: Stage::Starting,
            watchdog_ms,
            stage_since_ms: now_ms,
            looked_ms: now_ms,
            alive_ms: now_ms,
            extended_ms: None,
            before: None,
            started_ms: None,
            plugin_seen: false,
            unprobed: false,
            answered: false,
            going_down: false,
        }
    }

    /// How far the gateway is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// When the gateway is to be looked at next; `None` while nobody needs to know.
    #[must_use]
    pub fn next_look_ms(&self) -> Option<u64> {
        let pause_ms = match self.stage {
            Stage::Starting => START_LOOK_MS,
            Stage::Serving | Stage::Frozen => self.watch_look_ms()?,
            Stage::Stopping => self.watch_look_ms().unwrap_or(DRAIN_LOOK_MS).min(DRAIN_LOOK_MS),
        };
        Some(self.looked_ms + pause_ms)
    }

    /// Longest that a look may take. One that watches has the whole pause: a gateway that is only slow lives.
    #[must_use]
    pub fn look_max_ms(&self) -> u64 {
        match self.stage {
            Stage::Starting | Stage::Stopping => LOOK_MS_MAX,
            Stage::Serving | Stage::Frozen => self.watch_look_ms().unwrap_or(LOOK_MS_MAX),
        }
    }

    fn watch_look_ms(&self) -> Option<u64> {
        self.watchdog_ms.map(|limit_ms| (limit_ms / 8).clamp(WATCH_LOOK_MS.0, WATCH_LOOK_MS.1))
    }

    /// Takes one event.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Tell> {
        match event {
            Event::Looked(look) => self.looked(now_ms, look),
            Event::PluginSeen => {
                self.plugin_seen = true;
                vec![]
            }
            Event::Started => {
                self.plugin_seen = true;
                self.started_ms.get_or_insert(now_ms);
                vec![]
            }
            Event::PortChanged => {
                self.answered = false;
                vec![]
            }
            Event::StopBegun => {
                let first = self.stage != Stage::Stopping;
                self.enter(Stage::Stopping, now_ms);
                if first { vec![Tell::Stopping] } else { vec![] }
            }
            Event::GoingDown => {
                self.going_down = true;
                vec![]
            }
            Event::EvidenceKept => match self.stage {
                Stage::Frozen => vec![Tell::LetGo],
                Stage::Starting | Stage::Serving | Stage::Stopping => vec![],
            },
        }
    }

    fn enter(&mut self, stage: Stage, now_ms: u64) {
        if self.stage != stage {
            self.stage = stage;
            self.stage_since_ms = now_ms;
            self.extended_ms = None;
        }
    }

    fn looked(&mut self, now_ms: u64, look: Look) -> Vec<Tell> {
        let stalled = self.watch_look_ms().is_some_and(|pause| now_ms > self.looked_ms + 3 * pause);
        if stalled {
            // It was tideover that did not run: the gateway gets its whole time again.
            self.alive_ms = now_ms;
        }
        let works = self.works(look);
        self.looked_ms = now_ms;
        self.before = Some(look);
        self.answered |= look.answer != Answer::Silent;
        let mut tells = self.looked_in_stage(now_ms, look, works);
        if self.unprobed && self.answered {
            self.unprobed = false;
            tells.push(Tell::Probed);
        }
        tells
    }

    fn looked_in_stage(&mut self, now_ms: u64, look: Look, works: bool) -> Vec<Tell> {
        match self.stage {
            Stage::Starting => self.look_at_start(now_ms, look.answer, works),
            Stage::Serving => self.look_at_service(now_ms, look.answer),
            Stage::Stopping => self.look_at_drain(now_ms, look.answer, works),
            Stage::Frozen => match look.answer {
                Answer::Silent => vec![],
                Answer::Serving | Answer::Starting | Answer::Draining => {
                    self.enter(Stage::Serving, now_ms);
                    self.alive_ms = now_ms;
                    vec![Tell::Recovered, Tell::Alive]
                }
            },
        }
    }

    /// Whether the gateway got on since the look before.
    fn works(&self, look: Look) -> bool {
        let Some(before) = self.before else { return true };
        let ran = look.cpu_ticks.zip(before.cpu_ticks).is_some_and(|(now, then)| now > then);
        ran || look.answer != before.answer
    }

    fn look_at_start(&mut self, now_ms: u64, answer: Answer, works: bool) -> Vec<Tell> {
        match answer {
            Answer::Serving => {
                self.enter(Stage::Serving, now_ms);
                self.alive_ms = now_ms;
                vec![Tell::Ready, Tell::Alive]
            }
            Answer::Starting | Answer::Draining | Answer::Silent => {
                if self.is_believed(now_ms) {
                    self.enter(Stage::Serving, now_ms);
                    self.alive_ms = now_ms;
                    self.unprobed = !self.answered;
                    let unprobed = self.unprobed.then_some(Tell::Unprobed);
                    return unprobed.into_iter().chain([Tell::Ready, Tell::Alive]).collect();
                }
                self.extend(now_ms, works)
            }
        }
    }

    /// Whether a gateway that no probe calls ready counts as ready all the same.
    fn is_believed(&self, now_ms: u64) -> bool {
        let since = |ms: Option<u64>, pause_ms| ms.is_some_and(|ms| now_ms >= ms + pause_ms);
        let begun_ms = Some(self.stage_since_ms);
        since(self.started_ms, BELIEVED_MS)
            || since(begun_ms, START_MAX_MS)
            || (!self.answered
                && (since(self.started_ms, UNPROBED_MS)
                    || (!self.plugin_seen && since(begun_ms, UNHEARD_MS))))
    }

    fn look_at_service(&mut self, now_ms: u64, answer: Answer) -> Vec<Tell> {
        match answer {
            Answer::Serving | Answer::Starting | Answer::Draining => {
                self.alive_ms = now_ms;
                vec![Tell::Alive]
            }
            Answer::Silent if !self.answered => vec![Tell::Alive],
            Answer::Silent => {
                let frozen = self
                    .watchdog_ms
                    .is_some_and(|limit_ms| now_ms >= self.alive_ms + limit_ms / 8 * 5);
                if !frozen {
                    return vec![];
                }
                self.enter(Stage::Frozen, now_ms);
                vec![Tell::KeepEvidence]
            }
        }
    }

    fn look_at_drain(&mut self, now_ms: u64, answer: Answer, works: bool) -> Vec<Tell> {
        // A gateway on its way out answers to nobody but the stop's own limit.
        let mut tells = if self.watchdog_ms.is_some() { vec![Tell::Alive] } else { vec![] };
        // One that answers nothing any more may spin for ever: that is what the stop's timeout is for.
        let gets_on = match answer {
            Answer::Silent => works && !self.answered,
            Answer::Serving | Answer::Starting | Answer::Draining => true,
        };
        let in_time = now_ms < self.stage_since_ms + DRAIN_MAX_MS;
        tells.extend(self.extend(now_ms, gets_on && in_time && !self.going_down));
        tells
    }

    fn extend(&mut self, now_ms: u64, wanted: bool) -> Vec<Tell> {
        let due = self.extended_ms.is_none_or(|then_ms| now_ms >= then_ms + EXTENSION_MS / 3);
        if !(wanted && due) {
            return vec![];
        }
        self.extended_ms = Some(now_ms);
        vec![Tell::Extend(EXTENSION_MS)]
    }
}

/// What the line of [`status_line`] is made of.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// How far the gateway is.
    pub stage: Stage,
    /// Whether the host goes down.
    pub going_down: bool,
    /// Sessions whose interruption is still to be told.
    pub recovering: usize,
    /// Sessions whose effects are held.
    pub held: usize,
    /// Sessions with work under way.
    pub in_flight: usize,
    /// Why tideover does less than it should: the concern of each reason.
    pub degraded: Vec<&'a str>,
}

/// The service's status in one line: `ready; recovering 2 sessions; held 1`.
#[must_use]
pub fn status_line(now: &Situation<'_>) -> String {
    let mut parts = vec![match now.stage {
        Stage::Starting => "starting".to_owned(),
        Stage::Serving => "ready".to_owned(),
        Stage::Frozen => "the gateway does not answer".to_owned(),
        Stage::Stopping if now.going_down => {
            format!("going down with the host; draining {}", sessions(now.in_flight))
        }
        Stage::Stopping => format!("draining {}", sessions(now.in_flight)),
    }];
    if now.recovering > 0 {
        parts.push(format!("recovering {}", sessions(now.recovering)));
    }
    if now.held > 0 {
        parts.push(format!("held {}", now.held));
    }
    if !now.degraded.is_empty() {
        parts.push(format!("degraded: {} (see `tideover status`)", now.degraded.join(", ")));
    }
    parts.join("; ")
}

fn sessions(count: usize) -> String {
    if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_MS: u64 = 180_000;

    fn look(answer: Answer, cpu_ticks: u64) -> Event {
        Event::Looked(Look { answer, cpu_ticks: Some(cpu_ticks) })
    }

    fn serving(watchdog_ms: Option<u64>) -> Readiness {
        let mut machine = Readiness::new(watchdog_ms, 0);
        assert_eq!(machine.step(500, look(Answer::Serving, 1)), [Tell::Ready, Tell::Alive]);
        machine
    }

    /// Looks whenever the machine wants to, up to `until_ms`; everything it told, with its time.
    fn watch(machine: &mut Readiness, until_ms: u64, answer: Answer) -> Vec<(u64, Tell)> {
        let mut told = Vec::new();
        while let Some(at_ms) = machine.next_look_ms().filter(|at_ms| *at_ms <= until_ms) {
            told.extend(machine.step(at_ms, look(answer, 9)).into_iter().map(|tell| (at_ms, tell)));
        }
        told
    }

    #[test]
    fn ready_is_said_once_and_without_a_watchdog_nobody_looks_any_more() {
        let machine = serving(None);
        assert_eq!(machine.next_look_ms(), None);
    }

    #[test]
    fn a_slow_start_is_extended_while_it_gets_on_and_no_longer() {
        let mut machine = Readiness::new(None, 0);
        machine.step(1, Event::PluginSeen);
        let mut extensions = Vec::new();
        for tick in 1..=200 {
            let at_ms = tick * 500;
            let tells = machine.step(at_ms, look(Answer::Silent, tick));
            extensions.extend(tells.contains(&Tell::Extend(EXTENSION_MS)).then_some(at_ms));
        }
        assert_eq!(extensions, [500, 20_500, 40_500, 60_500, 80_500]);
        for tick in 201..=400 {
            assert_eq!(machine.step(tick * 500, look(Answer::Silent, 200)), [], "stands still");
        }
        assert_eq!(machine.stage(), Stage::Starting);
    }

    #[test]
    fn a_gateway_that_no_probe_reaches_is_believed_and_never_called_frozen() {
        let mut machine = Readiness::new(Some(LIMIT_MS), 0);
        machine.step(1_000, Event::Started);
        let told = watch(&mut machine, 31_500, Answer::Silent);
        assert!(told.contains(&(31_000, Tell::Unprobed)) && told.contains(&(31_000, Tell::Ready)));
        let told = watch(&mut machine, 900_000, Answer::Silent);
        assert!(told.iter().all(|tell| tell.1 == Tell::Alive) && told.len() > 30);
    }

    #[test]
    fn a_gateway_without_a_plugin_that_no_probe_reaches_is_not_kept_down() {
        let mut machine = Readiness::new(None, 0);
        let told = watch(&mut machine, 1_000_000, Answer::Silent);
        assert_eq!(told.last().map(|tell| tell.0), Some(UNHEARD_MS), "{told:?}");
        assert_eq!(machine.stage(), Stage::Serving);
        let mut heard = Readiness::new(None, 0);
        heard.step(10, Event::PluginSeen);
        watch(&mut heard, UNHEARD_MS * 2, Answer::Silent);
        assert_eq!(heard.stage(), Stage::Starting, "the plugin will say when it has started");
    }

    #[test]
    fn probes_that_never_say_ready_do_not_keep_a_gateway_down_for_ever() {
        let mut machine = Readiness::new(None, 0);
        machine.step(1_000, Event::Started);
        let told = watch(&mut machine, 1_000_000, Answer::Starting);
        let ready = told.iter().find(|tell| tell.1 == Tell::Ready).map(|tell| tell.0);
        assert_eq!(ready, Some(1_000 + BELIEVED_MS));
        let mut silent = Readiness::new(None, 0);
        let told = watch(&mut silent, START_MAX_MS * 2, Answer::Starting);
        let ready = told.iter().find(|tell| tell.1 == Tell::Ready).map(|tell| tell.0);
        assert_eq!(ready, Some(START_MAX_MS));
    }

    #[test]
    fn a_drain_that_answers_nothing_is_left_to_its_timeout() {
        let mut machine = serving(None);
        machine.step(600, Event::StopBegun);
        let mut told = Vec::new();
        for tick in 1..100 {
            told.extend(machine.step(600 + tick * 5_000, look(Answer::Silent, tick)));
        }
        assert_eq!(told, [], "it spins");
    }

    #[test]
    fn a_probe_that_comes_through_after_all_is_said() {
        let mut machine = Readiness::new(Some(LIMIT_MS), 0);
        machine.step(1_000, Event::Started);
        watch(&mut machine, 60_000, Answer::Silent);
        assert!(machine.step(61_000, look(Answer::Serving, 9)).contains(&Tell::Probed));
    }

    #[test]
    fn a_short_freeze_is_left_alone_and_a_long_one_is_evidenced_before_it_is_let_go() {
        let mut machine = serving(Some(LIMIT_MS));
        assert_eq!(watch(&mut machine, 90_000, Answer::Silent), []);
        let told = watch(&mut machine, 120_000, Answer::Serving);
        let Some((alive_ms, Tell::Alive)) = told.last().copied() else { panic!("{told:?}") };
        let told = watch(&mut machine, 280_000, Answer::Silent);
        let [(at_ms, Tell::KeepEvidence)] = told[..] else { panic!("{told:?}") };
        assert!((LIMIT_MS / 8 * 5..LIMIT_MS).contains(&(at_ms - alive_ms)), "{at_ms} {alive_ms}");
        assert_eq!(machine.step(at_ms + 100, Event::EvidenceKept), [Tell::LetGo]);
    }

    #[test]
    fn one_that_answers_before_the_evidence_is_kept_is_spared() {
        let mut machine = serving(Some(LIMIT_MS));
        watch(&mut machine, 200_000, Answer::Silent);
        assert_eq!(machine.stage(), Stage::Frozen);
        let told = machine.step(201_000, look(Answer::Serving, 9));
        assert_eq!(told, [Tell::Recovered, Tell::Alive]);
        assert_eq!(machine.step(201_100, Event::EvidenceKept), []);
    }

    #[test]
    fn when_tideover_itself_stood_still_the_gateway_gets_its_time_again() {
        let mut machine = serving(Some(LIMIT_MS));
        assert_eq!(machine.step(3_600_000, look(Answer::Silent, 1)), []);
        assert_eq!(machine.stage(), Stage::Serving);
    }

    #[test]
    fn a_draining_gateway_is_never_frozen_and_is_extended_unless_the_host_goes_down() {
        for going_down in [false, true] {
            let mut machine = serving(Some(LIMIT_MS));
            assert_eq!(machine.step(600, Event::StopBegun), [Tell::Stopping]);
            assert_eq!(machine.step(601, Event::StopBegun), []);
            if going_down {
                machine.step(602, Event::GoingDown);
            }
            let told = watch(&mut machine, 600_000, Answer::Draining);
            assert_eq!(machine.stage(), Stage::Stopping);
            let extended = told.iter().filter(|t| t.1 == Tell::Extend(EXTENSION_MS)).count();
            assert_eq!(extended > 15, !going_down, "{extended}");
            assert!(told.iter().any(|t| t.1 == Tell::Alive));
        }
    }

    #[test]
    fn the_line_tells_the_truth_at_each_phase() {
        let quiet = Situation {
            stage: Stage::Serving,
            going_down: false,
            recovering: 0,
            held: 0,
            in_flight: 3,
            degraded: vec![],
        };
        for (situation, line) in [
            (quiet.clone(), "ready"),
            (Situation { stage: Stage::Starting, ..quiet.clone() }, "starting"),
            (
                Situation { recovering: 2, held: 1, ..quiet.clone() },
                "ready; recovering 2 sessions; held 1",
            ),
            (Situation { stage: Stage::Stopping, ..quiet.clone() }, "draining 3 sessions"),
            (
                Situation {
                    stage: Stage::Stopping,
                    going_down: true,
                    in_flight: 1,
                    ..quiet.clone()
                },
                "going down with the host; draining 1 session",
            ),
            (
                Situation { degraded: vec!["plugin", "socket"], ..quiet },
                "ready; degraded: plugin, socket (see `tideover status`)",
            ),
        ] {
            assert_eq!(status_line(&situation), line);
        }
    }
}
