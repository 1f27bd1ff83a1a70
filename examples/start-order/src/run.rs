//! Starts each service when what it needs is ready, and stops them in reverse.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use groundtackle_health_check::{CheckConfig, Health, Name, Scheduler};
use groundtackle_health_check_probes::{Probe, ProbeCheck};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use crate::Fault;
use crate::services::{Service, Services, listed, path};

/// How often it is seen who has come up, and who has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Who does not end within this is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What one of them looks like to the others: its startup check in the graph of all.
pub fn health(services: &Services) -> Result<Health, Fault> {
    let builder = services.iter().fold(Health::builder(), |builder, of| {
        let check = ProbeCheck::from(Probe::Http(of.probe.http.clone()));
        builder.startup(of.name.clone(), of.settings(), check)
    });
    Ok(builder.build()?)
}

/// One that was started.
#[derive(Debug)]
struct Started {
    /// Until it ends.
    child: Option<Child>,
    at: Instant,
    is_late: bool,
}

#[derive(Debug)]
struct Run<'a> {
    services: &'a Services,
    health: Health,
    begun: Instant,
    started: BTreeMap<Name, Started>,
    ready: BTreeMap<Name, Duration>,
    /// Whether any ended by itself, or was late.
    failed: bool,
}

/// Until `stop`. Whether all went well.
pub async fn run(services: &Services, stop: impl Future<Output = ()>) -> Result<bool, Fault> {
    let mut run = Run {
        services,
        health: health(services)?,
        begun: Instant::now(),
        started: BTreeMap::new(),
        ready: BTreeMap::new(),
        failed: false,
    };
    let scheduler = Scheduler::start(&run.health);
    let mut looks = interval(LOOK);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = looks.tick() => run.look(),
        }
    }
    drop(scheduler);
    run.stop().await;
    Ok(!run.failed)
}

impl Run<'_> {
    fn look(&mut self) {
        let view = self.health.view();
        let is_up = |name: &Name| {
            let reading = view.reading(name.as_str());
            reading.is_some_and(|reading| reading.outcome.is_up())
        };
        for of in self.services.iter() {
            match self.started.get_mut(&of.name) {
                None if of.depends_on.iter().all(is_up) => self.start(of),
                None => {}
                Some(_) => {
                    if is_up(&of.name) && !self.ready.contains_key(&of.name) {
                        self.note_ready(&of.name);
                    }
                    self.note_end_or_delay(of);
                }
            }
        }
    }

    fn start(&mut self, of: &CheckConfig<Service>) {
        let Some((program, arguments)) = of.probe.command.split_first() else {
            return;
        };
        println!(
            "starting {}, which needs {}",
            of.name,
            listed(&of.depends_on)
        );
        let spawned = Command::new(program)
            .args(arguments)
            .kill_on_drop(true)
            .spawn();
        let child = match spawned {
            Ok(child) => Some(child),
            Err(error) => {
                self.fail(&of.name, &format!("can't be started: {program}: {error}"));
                None
            }
        };
        let started = Started {
            child,
            at: Instant::now(),
            is_late: false,
        };
        self.started.insert(of.name.clone(), started);
    }

    fn note_ready(&mut self, name: &Name) {
        let at = self.begun.elapsed();
        self.ready.insert(name.clone(), at);
        println!("{name} is ready, {at:.1?} after the beginning");
        if self.ready.len() == self.services.len() {
            let last = self.services.critical_path(&self.ready);
            println!(
                "all {} are ready; critical path: {}",
                self.ready.len(),
                path(&last, &self.ready)
            );
        }
    }

    fn note_end_or_delay(&mut self, of: &CheckConfig<Service>) {
        let is_ready = self.ready.contains_key(&of.name);
        let Some(started) = self.started.get_mut(&of.name) else {
            return;
        };
        let Some(child) = &mut started.child else {
            return;
        };
        if let Ok(Some(status)) = child.try_wait() {
            started.child = None;
            let when = if is_ready { "" } else { " before it was ready" };
            return self.fail(&of.name, &format!("ended{when}: {status}"));
        }
        if !is_ready && !started.is_late && started.at.elapsed() > of.probe.within {
            started.is_late = true;
            let view = self.health.view();
            let reading = view.reading(of.name.as_str());
            let why = reading
                .map_or("", |reading| reading.cause.as_str())
                .to_owned();
            self.fail(
                &of.name,
                &format!("is not ready after {:?} ({why})", of.probe.within),
            );
        }
    }

    fn fail(&mut self, name: &Name, what: &str) {
        self.failed = true;
        let held = self.services.held_up_by(name);
        println!("{name} {what}; it holds up {}", listed(held));
    }

    async fn stop(&mut self) {
        for of in self.services.iter().rev() {
            let child = self
                .started
                .get_mut(&of.name)
                .and_then(|of| of.child.take());
            let Some(mut child) = child else { continue };
            let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
            // It may have ended by now.
            let _ = id.map(|id| kill_process(id, Signal::TERM));
            let ended = timeout(STOP_WITHIN, child.wait()).await;
            if ended.is_err() {
                let _ = child.kill().await;
            }
            let how = if ended.is_err() { "killed" } else { "stopped" };
            println!("{how} {}", of.name);
        }
    }
}
