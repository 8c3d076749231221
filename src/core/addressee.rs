//! Who is told of an interruption: the session's own person; for a session that has none, its owner.
//!
//! What an unattended session does is the business of the person it works for, and of nobody else. So its notice goes
//! to the owner that the configuration names, else to the session that started it, up to the first that has a person;
//! a job that none started, to its agent's main session. Where none of this is known, nobody is told, and `status` and
//! the journal say so.

use std::collections::BTreeMap;

use super::checkpoint::{Checkpoint, Route};
use super::session_kind::{is_main, kind_of, parent_of, record_key};

/// Most steps from a sub-agent up to a person.
const GENERATIONS_MAX: usize = 8;

/// What the gateway said of a session that it was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Where its person is reached.
    pub route: Option<Route>,
    /// The session that started it.
    pub parent: Option<String>,
}

/// Where the notice of a session goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// To this route.
    Route {
        /// Where.
        route: Route,
        /// Whose conversation that is, where it is known.
        session: Option<String>,
    },
    /// The gateway may know more of this session.
    Ask(String),
    /// Nobody is known.
    Nobody,
}

/// Where the notice of `record` goes. `get` finds another session's record, `told` is what the gateway said so far,
/// `owner` the configured route.
#[must_use]
pub fn addressee<'a>(
    record: &Checkpoint,
    get: impl Fn(&str) -> Option<&'a Checkpoint>,
    told: &BTreeMap<String, Described>,
    owner: Option<&Route>,
) -> Addressee {
    let to = |route: &Route, session: Option<&str>| Addressee::Route {
        route: route.clone(),
        session: session.map(str::to_owned),
    };
    let mut key = record.session_key.clone();
    if let Some(route) = &record.route {
        return to(route, Some(&key));
    }
    if let Some(route) = owner.filter(|_| record.unattended().is_some()) {
        return to(route, None);
    }
    for _ in 0..GENERATIONS_MAX {
        let described = told.get(&key);
        if !kind_of(&key).is_unattended() {
            if is_main(&key) && key != record.session_key {
                // Where each person has a session of their own, the gateway keeps in this one who wrote last, whoever
                // that was: only a message that we saw in it counts.
                return Addressee::Nobody;
            }
            return match described {
                Some(described) => described
                    .route
                    .as_ref()
                    .map_or(Addressee::Nobody, |route| to(route, Some(&key))),
                None => Addressee::Ask(key),
            };
        }
        let parent = parent_of(&key).or_else(|| described.and_then(|found| found.parent.clone()));
        let Some(parent) = parent else {
            return if described.is_some() { Addressee::Nobody } else { Addressee::Ask(key) };
        };
        key = record_key(&parent).to_owned();
        if let Some(route) = get(&key).and_then(|parent| parent.route.as_ref()) {
            return to(route, Some(&key));
        }
    }
    Addressee::Nobody
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::stamp::Stamp;

    fn route(to: &str) -> Route {
        Route {
            channel: "telegram".to_owned(),
            to: to.to_owned(),
            account_id: None,
            thread_id: None,
        }
    }

    fn record(key: &str, to: Option<&str>) -> Checkpoint {
        let mut record = Checkpoint::new(key, Stamp::from_ms(0));
        record.route = to.map(route);
        record
    }

    #[test]
    fn an_unattended_session_is_its_owners_business() {
        let known = [
            record("agent:main:main", Some("main")),
            record("agent:main:telegram:direct:7", Some("seven")),
            record("agent:ops:main", None),
        ];
        let described = |route: Option<&str>, parent: Option<&str>| Described {
            route: route.map(self::route),
            parent: parent.map(str::to_owned),
        };
        let told = BTreeMap::from([
            (
                "agent:main:subagent:of7".to_owned(),
                described(Some("x"), Some("agent:main:telegram:direct:7")),
            ),
            (
                "agent:main:subagent:deep".to_owned(),
                described(None, Some("agent:main:subagent:of7")),
            ),
            (
                "agent:main:subagent:job".to_owned(),
                described(None, Some("agent:main:cron:j:run:1")),
            ),
            ("agent:main:subagent:lost".to_owned(), described(Some("x"), None)),
            (
                "agent:main:subagent:loop".to_owned(),
                described(None, Some("agent:main:subagent:loop")),
            ),
            (
                "agent:main:subagent:of8".to_owned(),
                described(None, Some("agent:main:telegram:direct:8")),
            ),
            ("agent:far:main".to_owned(), described(Some("far"), None)),
            ("agent:mute:main".to_owned(), described(None, None)),
            ("agent:main:subagent:far".to_owned(), described(Some("x"), Some("agent:far:main"))),
        ]);
        let get = |key: &str| known.iter().find(|record| record.session_key == key);
        let to = |to: &str, session: &str| Addressee::Route {
            route: route(to),
            session: Some(session.to_owned()),
        };
        let ask = |key: &str| Addressee::Ask(key.to_owned());
        for (key, want) in [
            ("agent:main:cron:j", to("main", "agent:main:main")),
            ("agent:main:main:heartbeat", to("main", "agent:main:main")),
            ("agent:main:telegram:direct:7:heartbeat", to("seven", "agent:main:telegram:direct:7")),
            ("agent:main:subagent:of7", to("seven", "agent:main:telegram:direct:7")),
            ("agent:main:subagent:deep", to("seven", "agent:main:telegram:direct:7")),
            ("agent:main:subagent:job", to("main", "agent:main:main")),
            ("agent:main:subagent:new", ask("agent:main:subagent:new")),
            // Whose it is is not known, so it is nobody else's to read.
            ("agent:main:subagent:lost", Addressee::Nobody),
            ("agent:main:subagent:loop", Addressee::Nobody),
            ("agent:main:subagent:of8", ask("agent:main:telegram:direct:8")),
            ("agent:ops:cron:j", Addressee::Nobody),
            ("agent:far:cron:j", Addressee::Nobody),
            ("agent:main:subagent:far", Addressee::Nobody),
            ("agent:far:main", to("far", "agent:far:main")),
            ("agent:mute:main", Addressee::Nobody),
            ("agent:main:telegram:direct:9", ask("agent:main:telegram:direct:9")),
        ] {
            assert_eq!(addressee(&record(key, None), get, &told, None), want, "{key}");
        }
    }

    #[test]
    fn a_configured_owner_is_told_of_unattended_sessions_alone() {
        let owner = route("owner");
        let none = BTreeMap::new();
        let of = |key: &str, own: Option<&str>| {
            addressee(&record(key, own), |_| None, &none, Some(&owner))
        };
        let owned = Addressee::Route { route: owner.clone(), session: None };
        assert_eq!(of("agent:main:cron:j", None), owned);
        assert_eq!(of("agent:main:subagent:a", None), owned);
        assert_eq!(of("agent:main:main", None), Addressee::Ask("agent:main:main".to_owned()));
        // A person has written in it.
        let own = Addressee::Route {
            route: route("thread"),
            session: Some("agent:main:subagent:a".to_owned()),
        };
        assert_eq!(of("agent:main:subagent:a", Some("thread")), own);
    }
}
