//! What the calls of a plugin cost, made with what its cases call it with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use tollgate_store::Acknowledge;

use super::home::Home;
use super::opaque::{Opaque, hand_back};
use super::run::{Plugin, items};
use super::{Before, Case, Step, values};
use crate::plugin::admission::{Decision, Ending, Request, Subject, Usage};
use crate::plugin::ingestion::Event;
use crate::plugin::settle::Settlement;
use crate::plugin::{CallError, Engine, Generation, Grants};

/// A policy that admits everybody and does nothing: what a call costs by itself. Made of the guest of the plugin runtime's tests.
const NULL: &[u8] = include_bytes!("null.wasm");

/// Calls of each case that are not counted: they start the instance and fill caches.
const WARM_UP: usize = 20;

/// Instances that are started to see what that costs.
const STARTS: usize = 200;

/// Between two rounds of a case, so that whoever limits requests a minute, and counts with care, admits the same again.
const ROUND_MS: u64 = 120_000;

/// Between the sequences of the events of two rounds: events that came before are not stored again.
const ROUND_SEQUENCES: u64 = 1 << 20;

/// What a kind of call costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Calls counted.
    pub calls: usize,
    /// What half of them took at most, in microseconds.
    pub p50_us: f64,
    /// What 99 of 100 took at most, in microseconds.
    pub p99_us: f64,
}

/// What a component costs.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// By hook function; of those that no case calls nothing is known.
    pub hooks: BTreeMap<&'static str, Cost>,
    /// To start an instance.
    pub instantiate: Cost,
    /// Linear memory of the instance that made the calls, in bytes; the largest of all cases.
    pub memory_bytes: usize,
}

/// Calls to be made of components that have the same stores.
pub struct Bench<'a> {
    engine: &'a Engine,
    grants: &'a Grants,
    scenes: Vec<Scene<'a>>,
}

/// The calls of one case.
struct Scene<'a> {
    before: &'a Before,
    inputs: Vec<Input>,
}

enum Input {
    /// And settled, where it is allowed.
    Admit(Request, Arc<[Arc<Subject>]>),
    Ingest(Vec<Event>),
    Run(String, u64),
}

impl<'a> Bench<'a> {
    /// Takes the calls of a plugin's hooks out of cases. What an earlier answer has to be known for is left out.
    pub fn new(engine: &'a Engine, plugin: &'a Plugin, cases: &'a [Case]) -> Bench<'a> {
        let name = &plugin.manifest().name;
        let scene = |case: &'a Case| {
            let steps = case.steps.iter().filter(|step| step.plugin == *name);
            Scene {
                before: &case.before,
                inputs: steps.filter_map(|step| Input::of(step).ok().flatten()).collect(),
            }
        };
        let mut scenes: Vec<_> = cases.iter().map(scene).collect();
        scenes.retain(|scene| !scene.inputs.is_empty());
        Bench { engine, grants: &plugin.manifest().grants, scenes }
    }

    /// The policy that does nothing.
    pub fn null(&self) -> anyhow::Result<Plugin> {
        Plugin::load(self.engine, NULL, "name = \"null\"")
    }

    /// Makes the calls again and again for about `time`, and tells `progress` how much of it each step took.
    pub async fn measure(
        &self,
        plugin: &Plugin,
        time: Duration,
        progress: &dyn Fn(Duration),
    ) -> anyhow::Result<Costs> {
        let mut taken = BTreeMap::new();
        let mut memory_bytes = 0;
        let each = time / u32::try_from(self.scenes.len().max(1)).unwrap_or(u32::MAX);
        for scene in &self.scenes {
            memory_bytes = memory_bytes.max(self.play(plugin, scene, each, &mut taken).await?);
            progress(each);
        }
        let (starts, started_bytes) = self.starts(plugin).await?;
        let hooks = taken.into_iter().map(|(hook, times)| (hook, Cost::of(times))).collect();
        Ok(Costs { hooks, instantiate: starts, memory_bytes: memory_bytes.max(started_bytes) })
    }

    /// Plays a case for so long; the bytes of its instance at the end.
    async fn play(
        &self,
        plugin: &Plugin,
        scene: &Scene<'_>,
        time: Duration,
        taken: &mut BTreeMap<&'static str, Vec<Duration>>,
    ) -> anyhow::Result<usize> {
        let home = Home::with(std::iter::once(self.grants), scene.before, Acknowledge::Relaxed)?;
        home.prepare(scene.before).await.context("before")?;
        let generation = plugin.start(self.engine, &home.stores())?;
        let mut calls = Calls { generation, made: 0, taken };
        calls.init().await?;
        let began = Instant::now();
        for round in 0.. {
            for input in &scene.inputs {
                calls.make(&home, input, round).await?;
            }
            if began.elapsed() >= time {
                break;
            }
        }
        let bytes = calls.generation.tally().memory();
        drop(calls);
        home.close().await?;
        Ok(bytes)
    }

    async fn starts(&self, plugin: &Plugin) -> anyhow::Result<(Cost, usize)> {
        let home = Home::new(std::iter::once(self.grants), &Before::default())?;
        let stores = home.stores();
        let (mut times, mut bytes) = (Vec::with_capacity(STARTS), 0);
        for _ in 0..STARTS {
            let generation = plugin.start(self.engine, &stores)?;
            let began = Instant::now();
            generation.warm().await?;
            times.push(began.elapsed());
            bytes = generation.tally().memory();
        }
        home.close().await?;
        Ok((Cost::of(times), bytes))
    }
}

impl Input {
    /// None: a call that is made once and not measured.
    fn of(step: &Step) -> anyhow::Result<Option<Input>> {
        let arguments: Vec<Value> =
            step.arguments.iter().map(|value| hand_back(value, &Opaque::new())).collect::<Result<_, _>>()?;
        Ok(match (step.function.as_str(), arguments.as_slice()) {
            ("admit", [request, subjects]) => {
                let subjects = items(subjects)?.iter().map(values::subject).collect::<Result<_, _>>()?;
                Some(Input::Admit(values::request(request, step.now_ms)?, subjects))
            }
            ("ingest", [batch]) => {
                let events = items(batch)?.iter().map(|event| values::event(event, step.now_ms));
                Some(Input::Ingest(events.collect::<Result<_, _>>()?))
            }
            ("run", [Value::String(job), ..]) => Some(Input::Run(job.clone(), step.now_ms)),
            _ => None,
        })
    }
}

/// Calls of one instance.
struct Calls<'a> {
    generation: Generation,
    made: usize,
    taken: &'a mut BTreeMap<&'static str, Vec<Duration>>,
}

impl Calls<'_> {
    async fn init(&mut self) -> anyhow::Result<()> {
        match self.generation.init().await {
            Ok(()) | Err(CallError::Guest(_)) => Ok(()),
            Err(error) => Err(error).context("init"),
        }
    }

    async fn make(&mut self, home: &Home, input: &Input, round: u64) -> anyhow::Result<()> {
        let hooks = self.generation.hooks();
        let later = |now_ms: u64| now_ms.saturating_add(round.saturating_mul(ROUND_MS));
        match input {
            Input::Admit(request, subjects) if hooks.admission => {
                let request = Arc::new(Request { now_ms: later(request.now_ms), ..request.clone() });
                home.set_clock(request.now_ms);
                let began = Instant::now();
                let answer = self.generation.admit(request.clone(), subjects.clone()).await;
                let decisions = self.took("admit", began, answer)?.unwrap_or_default();
                let settlements = settlements(&request, subjects, decisions);
                if !settlements.is_empty() {
                    let began = Instant::now();
                    let answer = self.generation.settle(Arc::new(settlements)).await;
                    self.took("settle", began, answer)?;
                }
            }
            Input::Ingest(events) if hooks.ingestion => {
                let mut events = events.clone();
                for event in &mut events {
                    event.sequence = event.sequence.saturating_add(round.saturating_mul(ROUND_SEQUENCES));
                }
                let began = Instant::now();
                let answer = self.generation.ingest(events.into()).await;
                self.took("ingest", began, answer)?;
            }
            Input::Run(job, now_ms) if hooks.jobs => {
                home.set_clock(later(*now_ms));
                let began = Instant::now();
                let answer = self.generation.run_job(job, later(*now_ms)).await;
                self.took("run", began, answer)?;
            }
            Input::Admit(..) | Input::Ingest(_) | Input::Run(..) => {}
        }
        Ok(())
    }

    /// Counts a call. Its own error is an answer like another.
    fn took<T>(
        &mut self,
        hook: &'static str,
        began: Instant,
        answer: Result<T, CallError>,
    ) -> anyhow::Result<Option<T>> {
        let took = began.elapsed();
        self.made += 1;
        if self.made > WARM_UP {
            self.taken.entry(hook).or_default().push(took);
        }
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(CallError::Guest(_)) => Ok(None),
            Err(error) => Err(error).with_context(|| hook.to_owned()),
        }
    }
}

/// What the host would settle when all goes well.
fn settlements(request: &Request, subjects: &[Arc<Subject>], decisions: Vec<Decision>) -> Vec<Settlement> {
    let usage = Usage {
        ending: Ending::Completed,
        status: Some(200),
        input_tokens: request.prompt_tokens,
        output_tokens: request.estimated_tokens.saturating_sub(request.prompt_tokens),
        cost: request.estimated_cost,
        duration_ms: 1_000,
        retry_after_ms: None,
        reached: None,
    };
    let settle = |(decision, subject): (Decision, &Arc<Subject>)| match decision {
        Decision::Allow(Some(ticket)) => Some(Settlement {
            request_id: request.id.as_str().into(),
            now_ms: request.now_ms,
            model: request.model.as_str().into(),
            subject: subject.identity(),
            ticket: Some(ticket),
            usage,
        }),
        Decision::Allow(None) | Decision::Deny(_) => None,
    };
    decisions.into_iter().zip(subjects).filter_map(settle).collect()
}

impl Cost {
    fn of(mut times: Vec<Duration>) -> Cost {
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            // A tenth of a microsecond is more than any clock here knows.
            times.get(place).map_or(0.0, |time| (time.as_secs_f64() * 1e7).round() / 10.0)
        };
        Cost { calls: times.len(), p50_us: at(50), p99_us: at(99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::admission;

    #[test]
    fn the_component_that_does_nothing_is_made_of_the_guest_that_allows() {
        let made = admission("(call $allow (local.get 15))", "(call $settled)");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cases/null.wasm");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(file, &made).unwrap();
        }
        assert!(std::fs::read(file).unwrap() == made, "make it anew with BLESS=1");
    }

    #[test]
    fn half_and_nearly_all_are_found_in_any_number_of_times() {
        let of = |times: &[u64]| Cost::of(times.iter().map(|us| Duration::from_micros(*us)).collect());
        assert_eq!(of(&[]), Cost { calls: 0, p50_us: 0.0, p99_us: 0.0 });
        assert_eq!(of(&[7]), Cost { calls: 1, p50_us: 7.0, p99_us: 7.0 });
        let many: Vec<u64> = (1..=1_000).rev().collect();
        assert_eq!(of(&many), Cost { calls: 1_000, p50_us: 501.0, p99_us: 991.0 });
    }
}
