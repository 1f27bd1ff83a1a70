//! A server with the paths of GitHub's REST API that this crate uses: it filters, pages and links as documented.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod shapes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use groundtackle_core::{RetryConfig, Secret};
use groundtackle_release_gate::{Digest, Request};
use groundtackle_release_gate_github::{GitHub, GitHubConfig};
use groundtackle_testkit_servers::{HttpServer, Reply, Request as Asked};
use serde_json::{Value, json};

use shapes::REPO;

pub(crate) const TOKEN: &str = "ghs_16C7e42F292c6912E7710c838347Ae178B4a";
/// As of a GitHub Enterprise Server.
pub(crate) const PREFIX: &str = "/api/v3";
pub(crate) const ASSET: &str = "image-manifest.json";

#[derive(Default)]
pub(crate) struct State {
    /// Single things, by path.
    pub(crate) things: BTreeMap<String, Value>,
    /// Lists by path, and the key that they are under.
    pub(crate) lists: BTreeMap<String, (Option<&'static str>, Vec<Value>)>,
    pub(crate) issues: Vec<Value>,
    /// Labels that the repository has not; it has all others.
    pub(crate) no_labels: BTreeSet<String>,
    /// A proxy takes the header off that links pages.
    pub(crate) unlinked: bool,
    /// What is answered before anything else.
    pub(crate) faults: VecDeque<Reply>,
    /// What is answered to everything.
    pub(crate) always: Option<Reply>,
    /// Where pages link to, if not to this server.
    pub(crate) elsewhere: Option<String>,
    /// Writes that are done, and whose answer is lost.
    pub(crate) lose_answers: usize,
}

/// Id, commit, payload, and statuses with their times.
pub(crate) type Deployed<'a> = (u64, &'a str, Value, &'a [(&'a str, &'a str)]);

pub(crate) struct Fake {
    pub(crate) server: HttpServer,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let server = HttpServer::start(|_| Reply::Close);
        let base = server.url(PREFIX);
        server.script(move |asked| answer(&mut shared.lock().unwrap(), &base, asked));
        Self { server, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn config(&self) -> GitHubConfig {
        let token = Secret::from(TOKEN).into();
        let mut config = GitHubConfig::new(REPO.parse().unwrap(), token, ASSET);
        config.api = self.server.url(PREFIX).parse().unwrap();
        config.retry = RetryConfig::default()
            .with_max_attempts(3)
            .with_initial_delay(std::time::Duration::from_millis(1));
        config
    }

    pub(crate) fn github(&self) -> GitHub {
        self.config().into()
    }

    pub(crate) fn thing(&self, path: &str, value: Value) {
        let path = format!("{PREFIX}/repos/{REPO}{path}");
        self.state().things.insert(path, value);
    }

    pub(crate) fn list(&self, path: &str, key: Option<&'static str>, items: Vec<Value>) {
        let path = format!("{PREFIX}/repos/{REPO}{path}");
        self.state().lists.insert(path, (key, items));
    }

    /// The release of the request's tag has its artefact, and its tag is at the commit `c0ffee`.
    pub(crate) fn released(&self, request: &Request) {
        let release = shapes::release(&request.tag, ASSET, Some(&request.artefact.to_string()));
        self.thing(&format!("/releases/tags/{}", request.tag), release);
        let commit = shapes::commit(COMMIT, Some("ada-l"), Some("ada-l"), 1, "release");
        self.thing(&format!("/commits/tags/{}", request.tag), commit);
    }

    /// Deployments to an environment, the newest first.
    pub(crate) fn deployed(&self, environment: &str, all: &[Deployed<'_>]) {
        let mut listed = Vec::new();
        for (id, sha, payload, statuses) in all {
            listed.push(shapes::deployment(*id, sha, environment, payload.clone()));
            let statuses = statuses.iter().rev();
            let statuses = statuses.map(|(state, at)| shapes::deployment_status(state, at));
            self.list(
                &format!("/deployments/{id}/statuses"),
                None,
                statuses.collect(),
            );
        }
        let path = format!("{PREFIX}/repos/{REPO}/deployments");
        let mut state = self.state();
        let (_, known) = state.lists.entry(path).or_default();
        known.extend(listed);
    }

    /// What was asked for, without the prefix.
    pub(crate) fn paths(&self) -> Vec<String> {
        let seen = self.server.seen().into_iter();
        seen.map(|asked| {
            let path = asked.path.strip_prefix(PREFIX).unwrap_or(&asked.path);
            format!("{} {path}", asked.method)
        })
        .collect()
    }
}

pub(crate) const COMMIT: &str = "c0ffee";

pub(crate) fn of(artefact: Digest) -> Value {
    json!({ "artefact": artefact.to_string() })
}

fn query(asked: &Asked) -> BTreeMap<String, String> {
    let (_, query) = asked.path.split_once('?').unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.into(), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

fn answer(state: &mut State, base: &str, asked: &Asked) -> Reply {
    if let Some(fault) = state.faults.pop_front() {
        return fault;
    }
    if let Some(always) = &state.always {
        return always.clone();
    }
    let bearer = format!("Bearer {TOKEN}");
    if asked.header("authorization") != Some(&bearer) {
        return Reply::status(401, shapes::problem("Bad credentials").to_string());
    }
    assert_eq!(asked.header("accept"), Some("application/vnd.github+json"));
    assert_eq!(asked.header("x-github-api-version"), Some("2022-11-28"));
    assert!(
        asked.header("user-agent").is_some(),
        "GitHub refuses who has none"
    );
    let path = asked.path.split('?').next().unwrap().to_owned();
    let issues = format!("{PREFIX}/repos/{REPO}/issues");
    if asked.method != "GET" {
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let reply = write(state, &issues, &path, &asked.method, body);
        if state.lose_answers > 0 {
            state.lose_answers -= 1;
            return Reply::Close;
        }
        return reply;
    }
    let query = query(asked);
    if path == issues {
        let found = state.issues.iter().filter(|issue| matches(issue, &query));
        let mut found: Vec<_> = found.cloned().collect();
        // The newest come first, unless asked otherwise.
        found.sort_by_key(|issue| {
            std::cmp::Reverse(issue["created_at"].as_str().unwrap().to_owned())
        });
        return page(state, base, asked, &query, None, &found);
    }
    let labels = format!("{PREFIX}/repos/{REPO}/labels/");
    if let Some(label) = path.strip_prefix(&labels).map(decoded) {
        return match state.no_labels.contains(&label) {
            true => Reply::status(404, shapes::problem("Not Found").to_string()),
            false => Reply::ok(shapes::label(&label).to_string()),
        };
    }
    if let Some((key, items)) = state.lists.get(&path) {
        let here = items.iter().filter(|item| {
            let wanted = query.get("environment");
            wanted.is_none_or(|wanted| item["environment"] == **wanted)
        });
        let items: Vec<_> = here.cloned().collect();
        return page(state, base, asked, &query, *key, &items);
    }
    match state.things.get(&path) {
        Some(thing) => Reply::ok(thing.to_string()),
        None => Reply::status(404, shapes::problem("Not Found").to_string()),
    }
}

fn matches(issue: &Value, query: &BTreeMap<String, String>) -> bool {
    let labels = issue["labels"].as_array().unwrap();
    let labelled = query.get("labels").is_none_or(|wanted| {
        wanted
            .split(',')
            .all(|wanted| labels.iter().any(|label| label["name"] == wanted))
    });
    let state = query.get("state").map_or("open", String::as_str);
    let since = query
        .get("since")
        .is_none_or(|since| issue["updated_at"].as_str().unwrap() >= since.as_str());
    labelled && since && (state == "all" || issue["state"] == state)
}

fn page(
    state: &State,
    base: &str,
    asked: &Asked,
    query: &BTreeMap<String, String>,
    key: Option<&str>,
    items: &[Value],
) -> Reply {
    let number = |name: &str, usual: usize| query.get(name).map_or(usual, |n| n.parse().unwrap());
    let (per_page, page) = (number("per_page", 30).min(100), number("page", 1));
    let from = items.len().min((page - 1) * per_page);
    let to = items.len().min(from + per_page);
    let slice = &items[from..to];
    let body = match key {
        None => json!(slice),
        Some("commits") => shapes::comparison(items.len(), slice),
        Some(key) => json!({ "total_count": items.len(), key: slice }),
    };
    let mut headers = vec![("Content-Type", "application/json; charset=utf-8".to_owned())];
    if to < items.len() && !state.unlinked {
        let path = asked.path.strip_prefix(PREFIX).unwrap();
        let path = path.split("&page=").next().unwrap();
        let base = state.elsewhere.as_deref().unwrap_or(base);
        let last = items.len().div_ceil(per_page);
        headers.push((
            "Link",
            format!(
                "<{base}{path}&page={}>; rel=\"next\", <{base}{path}&page={last}>; rel=\"last\"",
                page + 1
            ),
        ));
    }
    Reply::Answer(200, headers, body.to_string().into())
}

fn write(state: &mut State, issues: &str, path: &str, method: &str, body: Value) -> Reply {
    if method == "POST" && path == issues {
        let number = state.issues.len() as u64 + 1;
        let labels: Vec<_> = body["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| label.as_str().unwrap())
            .collect();
        let mut issue = shapes::issue(
            number,
            &labels,
            "2026-11-10T11:00:00Z",
            None,
            body["body"].as_str().unwrap(),
        );
        issue["title"] = body["title"].clone();
        state.issues.push(issue.clone());
        return Reply::status(201, issue.to_string());
    }
    if method == "PATCH" {
        let number: usize = path.strip_prefix(issues).unwrap()[1..].parse().unwrap();
        let issue = &mut state.issues[number - 1];
        for key in ["title", "body", "state"] {
            issue[key] = body[key].clone();
        }
        return Reply::ok(issue.to_string());
    }
    if method == "POST" && path.ends_with("/deployment_protection_rule") {
        return Reply::status(204, Vec::new());
    }
    Reply::status(404, shapes::problem("Not Found").to_string())
}
