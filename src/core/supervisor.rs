//! The supervisor machine: signals, flush, drain, exit. State × event → effects, every cell written.
//!
//! It decides about the child only; what the reports of the plugin mean is the [`ledger`](super::ledger)'s.

use super::recovery::{ExitFact, GoingDown, StopRequest};

/// Where the supervision of one child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The child runs.
    Running,
    /// SIGTERM is held for the final flush, up to the deadline.
    Flushing,
    /// SIGTERM was passed on; the child drains and its reports are still taken.
    Draining,
    /// The child ended.
    Ended,
}

/// A signal that tideover forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Terminate.
    Term,
    /// Interrupt.
    Int,
    /// Hang up.
    Hup,
    /// Quit.
    Quit,
    /// User signal 1: a restart on older gateways, the debugger on newer ones.
    Usr1,
    /// User signal 2: a restart on newer gateways.
    Usr2,
}

/// What SIGUSR1 means to the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Usr1 {
    /// Nobody has said, and the child is a Node process: it would open the debugger.
    #[default]
    OpensDebugger,
    /// The child handles it itself.
    Handled,
}

/// What happens to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A signal arrived.
    Signal(Signal, StopRequest),
    /// Every open record is on disk and the plugin has answered.
    FlushDone,
    /// The flush deadline ran out.
    FlushDeadline,
    /// The stop is part of a larger one.
    GoingDown(GoingDown),
    /// The time that the larger stop leaves for the drain ran out.
    DrainDeadline,
    /// The child ended.
    ChildEnded(ExitFact),
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Note on disk and in the log who asked for the stop.
    RecordStop(StopRequest),
    /// Ask the plugin for its final flush, sync the store, and arm the deadline.
    StartFlush,
    /// Note that the flush was cut off by its deadline.
    FlushMissed,
    /// Pass a signal on to the child.
    Forward(Signal),
    /// Wake a stopped child, so that it can receive what was just sent.
    ForwardContinue,
    /// Say what to use in place of a signal that was not passed on.
    RefuseUsr1,
    /// Note on disk and in the log what goes down around the stop, and arm the drain's deadline.
    RecordGoingDown(GoingDown),
    /// End the child while everything about it can still be written down.
    Kill,
    /// Mark what is open as cut, make all durable, and leave as the child did.
    Finish(ExitFact),
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Supervisor {
    state: State,
    stop: Option<StopRequest>,
    usr1: Usr1,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self { state: State::Running, stop: None, usr1: Usr1::OpensDebugger }
    }
}

impl Supervisor {
    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Who asked for the stop, if anyone did.
    #[must_use]
    pub fn stop(&self) -> Option<&StopRequest> {
        self.stop.as_ref()
    }

    /// Whether a stop is under way.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Learns what SIGUSR1 means to the child.
    pub fn set_usr1(&mut self, usr1: Usr1) {
        self.usr1 = usr1;
    }

    /// Takes one event. `in_flight` says whether any session has work that a flush could still save.
    pub fn step(&mut self, event: Event, in_flight: bool) -> Vec<Effect> {
        match (self.state, event) {
            (State::Running, Event::Signal(Signal::Term, who)) => self.begin_stop(who, in_flight),
            (
                State::Running | State::Draining | State::Flushing,
                Event::Signal(Signal::Usr1, _),
            ) => match self.usr1 {
                Usr1::OpensDebugger => vec![Effect::RefuseUsr1],
                Usr1::Handled => vec![Effect::Forward(Signal::Usr1)],
            },
            (
                State::Running | State::Draining | State::Flushing,
                Event::Signal(Signal::Usr2, _),
            ) => {
                vec![Effect::Forward(Signal::Usr2)]
            }
            (
                State::Running,
                Event::Signal(signal @ (Signal::Int | Signal::Hup | Signal::Quit), who),
            ) => {
                // These end a gateway at once: nothing is held back, the intents are durable anyway.
                self.stop.get_or_insert(who.clone());
                if who.from_terminal {
                    // The terminal sent it to the whole foreground group: the child has it already.
                    return vec![Effect::RecordStop(who)];
                }
                vec![Effect::RecordStop(who), Effect::Forward(signal)]
            }
            (
                State::Flushing,
                Event::Signal(
                    signal @ (Signal::Term | Signal::Int | Signal::Hup | Signal::Quit),
                    who,
                ),
            ) => {
                // Whoever asks twice does not want to wait for the flush.
                self.state = State::Draining;
                let mut effects = vec![
                    Effect::FlushMissed,
                    Effect::Forward(Signal::Term),
                    Effect::ForwardContinue,
                ];
                if signal != Signal::Term && !who.from_terminal {
                    effects.push(Effect::Forward(signal));
                }
                effects
            }
            (
                State::Draining,
                Event::Signal(
                    signal @ (Signal::Term | Signal::Int | Signal::Hup | Signal::Quit),
                    who,
                ),
            ) => {
                if who.from_terminal {
                    return vec![];
                }
                vec![Effect::Forward(signal), Effect::ForwardContinue]
            }
            (State::Flushing, Event::FlushDone) => self.pass_term(),
            (State::Flushing, Event::FlushDeadline) => {
                let mut effects = vec![Effect::FlushMissed];
                effects.extend(self.pass_term());
                effects
            }
            (
                State::Running | State::Draining | State::Ended,
                Event::FlushDone | Event::FlushDeadline,
            ) => {
                vec![]
            }
            (State::Flushing | State::Draining, Event::GoingDown(what)) => {
                if let Some(stop) = &mut self.stop {
                    stop.going_down = Some(what);
                }
                vec![Effect::RecordGoingDown(what)]
            }
            (State::Flushing | State::Draining, Event::DrainDeadline) => vec![Effect::Kill],
            (State::Running | State::Ended, Event::GoingDown(_) | Event::DrainDeadline) => vec![],
            (State::Running | State::Flushing | State::Draining, Event::ChildEnded(exit)) => {
                self.state = State::Ended;
                vec![Effect::Finish(exit)]
            }
            (State::Ended, Event::ChildEnded(_) | Event::Signal(_, _)) => vec![],
        }
    }

    fn begin_stop(&mut self, who: StopRequest, in_flight: bool) -> Vec<Effect> {
        self.stop = Some(who.clone());
        if in_flight {
            self.state = State::Flushing;
            vec![Effect::RecordStop(who), Effect::StartFlush]
        } else {
            let mut effects = self.pass_term();
            effects.push(Effect::RecordStop(who));
            effects
        }
    }

    fn pass_term(&mut self) -> Vec<Effect> {
        self.state = State::Draining;
        vec![Effect::Forward(Signal::Term), Effect::ForwardContinue]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::stamp::Stamp;

    fn who() -> StopRequest {
        StopRequest {
            signal: "SIGTERM".to_owned(),
            pid: 1,
            uid: 0,
            from_terminal: false,
            executable: None,
            unit: None,
            going_down: None,
            at: Stamp::from_ms(0),
        }
    }

    fn signal(signal: Signal) -> Event {
        Event::Signal(signal, who())
    }

    const EXIT: ExitFact = ExitFact {
        code: Some(0),
        signal: None,
        core: false,
        oom_kills: None,
        at: Stamp::from_ms(0),
    };

    #[test]
    fn term_with_work_in_flight_waits_for_the_flush() {
        let mut machine = Supervisor::default();
        assert_eq!(
            machine.step(signal(Signal::Term), true),
            [Effect::RecordStop(who()), Effect::StartFlush]
        );
        assert_eq!(
            machine.step(Event::FlushDone, true),
            [Effect::Forward(Signal::Term), Effect::ForwardContinue]
        );
        assert_eq!(machine.step(Event::FlushDeadline, true), []);
        assert_eq!(machine.step(Event::ChildEnded(EXIT), true), [Effect::Finish(EXIT)]);
    }

    #[test]
    fn term_with_nothing_in_flight_passes_at_once() {
        let mut machine = Supervisor::default();
        let effects = machine.step(signal(Signal::Term), false);
        assert_eq!(effects.first(), Some(&Effect::Forward(Signal::Term)));
        assert_eq!(machine.state(), State::Draining);
    }

    #[test]
    fn the_deadline_passes_term_whatever_happens() {
        let mut machine = Supervisor::default();
        machine.step(signal(Signal::Term), true);
        assert_eq!(
            machine.step(Event::FlushDeadline, true),
            [Effect::FlushMissed, Effect::Forward(Signal::Term), Effect::ForwardContinue]
        );
    }

    #[test]
    fn a_second_term_passes_at_once() {
        let mut machine = Supervisor::default();
        machine.step(signal(Signal::Term), true);
        assert!(machine.step(signal(Signal::Term), true).contains(&Effect::Forward(Signal::Term)));
        assert_eq!(
            machine.step(signal(Signal::Term), true),
            [Effect::Forward(Signal::Term), Effect::ForwardContinue]
        );
    }

    #[test]
    fn an_interrupt_of_the_terminal_is_not_sent_twice_and_one_from_outside_is_sent() {
        let from = |from_terminal| {
            Event::Signal(Signal::Int, StopRequest { pid: 0, from_terminal, ..who() })
        };
        let forwards = |effects: Vec<Effect>| effects.contains(&Effect::Forward(Signal::Int));
        assert!(!forwards(Supervisor::default().step(from(true), true)));
        // Pid 0 is also what a sender outside the pid namespace looks like.
        assert!(forwards(Supervisor::default().step(from(false), true)));
        let mut draining = Supervisor::default();
        draining.step(signal(Signal::Term), false);
        assert!(!forwards(draining.step(from(true), true)));
        assert!(forwards(draining.step(from(false), true)));
    }

    #[test]
    fn a_larger_stop_is_noted_and_its_deadline_ends_the_child() {
        let mut machine = Supervisor::default();
        assert_eq!(machine.step(Event::GoingDown(GoingDown::Host), true), []);
        assert_eq!(machine.step(Event::DrainDeadline, true), []);
        machine.step(signal(Signal::Term), false);
        assert_eq!(
            machine.step(Event::GoingDown(GoingDown::Host), true),
            [Effect::RecordGoingDown(GoingDown::Host)]
        );
        assert!(machine.stop().is_some_and(StopRequest::host_goes_down));
        assert_eq!(machine.step(Event::DrainDeadline, true), [Effect::Kill]);
        machine.step(Event::ChildEnded(EXIT), true);
        assert_eq!(machine.step(Event::DrainDeadline, true), []);
    }

    #[test]
    fn usr1_is_never_sent_to_a_debugger() {
        let mut machine = Supervisor::default();
        assert_eq!(machine.step(signal(Signal::Usr1), true), [Effect::RefuseUsr1]);
        machine.set_usr1(Usr1::Handled);
        assert_eq!(machine.step(signal(Signal::Usr1), true), [Effect::Forward(Signal::Usr1)]);
        assert_eq!(machine.step(signal(Signal::Usr2), true), [Effect::Forward(Signal::Usr2)]);
        assert!(!machine.is_stopping());
    }

    #[test]
    fn whatever_comes_term_is_forwarded_before_the_deadline_event_returns() {
        // Every order of up to four events: after TERM and the deadline, TERM has gone out.
        let events = [
            signal(Signal::Term),
            signal(Signal::Int),
            Event::FlushDone,
            Event::FlushDeadline,
            signal(Signal::Usr1),
        ];
        let mut orders: Vec<Vec<usize>> = vec![vec![]];
        for _ in 0..4 {
            orders = orders
                .into_iter()
                .flat_map(|order| {
                    (0..events.len()).map(move |i| {
                        let mut o = order.clone();
                        o.push(i);
                        o
                    })
                })
                .collect();
        }
        for order in orders {
            let mut machine = Supervisor::default();
            let mut effects = Vec::new();
            for &i in &order {
                effects.extend(machine.step(events[i].clone(), true));
            }
            effects.extend(machine.step(Event::FlushDeadline, true));
            if order.contains(&0) {
                assert!(effects.contains(&Effect::Forward(Signal::Term)), "{order:?}");
            }
        }
    }
}
