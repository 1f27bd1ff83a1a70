//! Answers in the shape of the examples that GitHub documents (<https://docs.github.com/en/rest>, version 2022-11-28, and
//! <https://docs.github.com/en/webhooks/webhook-events-and-payloads>): their keys and types, with values of these tests.

use serde_json::{Value, json};

pub(crate) const API: &str = "https://api.github.com";
pub(crate) const REPO: &str = "octo-org/node";

pub(crate) fn user(login: &str) -> Value {
    let url = format!("{API}/users/{login}");
    json!({
        "login": login, "id": 1, "node_id": "MDQ6VXNlcjE=", "avatar_url": "https://github.com/images/error/octocat_happy.gif",
        "gravatar_id": "", "url": url, "html_url": format!("https://github.com/{login}"),
        "followers_url": format!("{url}/followers"), "following_url": format!("{url}/following{{/other_user}}"),
        "gists_url": format!("{url}/gists{{/gist_id}}"), "starred_url": format!("{url}/starred{{/owner}}{{/repo}}"),
        "subscriptions_url": format!("{url}/subscriptions"), "organizations_url": format!("{url}/orgs"),
        "repos_url": format!("{url}/repos"), "events_url": format!("{url}/events{{/privacy}}"),
        "received_events_url": format!("{url}/received_events"), "type": "User", "site_admin": false
    })
}

pub(crate) fn repository(full_name: &str) -> Value {
    let (owner, name) = full_name.split_once('/').unwrap();
    json!({
        "id": 1296269, "node_id": "MDEwOlJlcG9zaXRvcnkxMjk2MjY5", "name": name, "full_name": full_name, "owner": user(owner),
        "private": false, "html_url": format!("https://github.com/{full_name}"), "description": "This your first repo!",
        "fork": false, "url": format!("{API}/repos/{full_name}"), "default_branch": "main", "archived": false, "disabled": false,
        "visibility": "public"
    })
}

/// An asset is as it is since digests are part of it (June 2025).
pub(crate) fn release(tag: &str, asset: &str, digest: Option<&str>) -> Value {
    let url = format!("{API}/repos/{REPO}/releases");
    json!({
        "url": format!("{url}/1"), "html_url": format!("https://github.com/{REPO}/releases/{tag}"),
        "assets_url": format!("{url}/1/assets"), "upload_url": "https://uploads.github.com/assets{?name,label}",
        "tarball_url": format!("{API}/tarball"), "zipball_url": format!("{API}/zipball"), "discussion_url": "https://github.com/d",
        "id": 1, "node_id": "MDc6UmVsZWFzZTE=", "tag_name": tag, "target_commitish": "main", "name": tag, "body": "Description",
        "draft": false, "prerelease": false, "immutable": false, "created_at": "2026-11-01T19:35:32Z",
        "published_at": "2026-11-01T19:35:32Z", "author": user("octocat"),
        "assets": [{
            "url": format!("{url}/assets/1"), "browser_download_url": format!("https://github.com/{asset}"), "id": 1,
            "node_id": "MDEyOlJlbGVhc2VBc3NldDE=", "name": asset, "label": "short description", "state": "uploaded",
            "content_type": "application/json", "size": 1024, "digest": digest, "download_count": 42,
            "created_at": "2026-11-01T19:35:32Z", "updated_at": "2026-11-01T19:35:32Z", "uploader": user("octocat")
        }]
    })
}

/// `author` and `committer` are logins; `None` is one whom GitHub does not know.
pub(crate) fn commit(
    sha: &str,
    author: Option<&str>,
    committer: Option<&str>,
    parents: usize,
    message: &str,
) -> Value {
    let url = format!("{API}/repos/{REPO}/commits/{sha}");
    let parent = json!({ "url": format!("{API}/repos/{REPO}/commits/p"), "sha": "p", "html_url": "https://github.com/p" });
    let signature = |login: Option<&str>| {
        let name = login.unwrap_or("stranger");
        json!({ "name": name, "email": format!("{name}@example.com"), "date": "2026-11-01T16:00:49Z" })
    };
    let by_github = committer == Some("web-flow");
    json!({
        "url": url, "sha": sha, "node_id": "MDY6Q29tbWl0", "html_url": format!("https://github.com/{REPO}/commit/{sha}"),
        "comments_url": format!("{url}/comments"),
        "commit": {
            "url": url, "author": signature(author), "committer": signature(committer), "message": message,
            "tree": { "url": format!("{API}/trees/t"), "sha": "t" }, "comment_count": 0,
            "verification": {
                "verified": by_github, "reason": if by_github { "valid" } else { "unsigned" }, "signature": null, "payload": null,
                "verified_at": null
            }
        },
        "author": author.map(user), "committer": committer.map(user), "parents": vec![parent; parents]
    })
}

pub(crate) fn comparison(total: usize, commits: &[Value]) -> Value {
    let base = commit("base", Some("octocat"), Some("octocat"), 1, "before");
    json!({
        "url": format!("{API}/compare"), "html_url": "https://github.com/compare", "permalink_url": "https://github.com/compare",
        "diff_url": "https://github.com/compare.diff", "patch_url": "https://github.com/compare.patch", "base_commit": base,
        "merge_base_commit": base, "status": "ahead", "ahead_by": total, "behind_by": 0, "total_commits": total, "commits": commits,
        "files": []
    })
}

pub(crate) fn pull(number: u64, opener: &str, head: &str, merged_at: Option<&str>) -> Value {
    let url = format!("{API}/repos/{REPO}/pulls/{number}");
    json!({
        "url": url, "id": number, "node_id": "MDExOlB1bGxSZXF1ZXN0MQ==", "html_url": format!("https://github.com/{REPO}/pull/{number}"),
        "diff_url": "https://github.com/d", "patch_url": "https://github.com/p", "issue_url": format!("{API}/issues/{number}"),
        "commits_url": format!("{url}/commits"), "number": number, "state": "closed", "locked": true, "title": "Amazing new feature",
        "user": user(opener), "body": "Please pull these awesome changes in!", "labels": [], "milestone": null,
        "created_at": "2026-11-01T19:01:12Z", "updated_at": "2026-11-01T19:01:12Z", "closed_at": merged_at, "merged_at": merged_at,
        "merge_commit_sha": "e5bd3914e2e596debea16f433f57875b5b90bcd6", "assignee": null, "assignees": [],
        "requested_reviewers": [], "requested_teams": [], "draft": false, "auto_merge": null, "author_association": "OWNER",
        "head": { "label": "octo-org:topic", "ref": "topic", "sha": head, "user": user("octo-org"), "repo": repository(REPO) },
        "base": { "label": "octo-org:main", "ref": "main", "sha": "base", "user": user("octo-org"), "repo": repository(REPO) },
        "_links": { "self": { "href": url } }
    })
}

pub(crate) fn review(login: &str, state: &str, commit: &str) -> Value {
    json!({
        "id": 80, "node_id": "MDE3OlB1bGxSZXF1ZXN0UmV2aWV3ODA=", "user": user(login), "body": "Here is the body for the review.",
        "state": state, "html_url": "https://github.com/review", "pull_request_url": format!("{API}/pulls/12"),
        "_links": { "html": { "href": "https://github.com/review" }, "pull_request": { "href": format!("{API}/pulls/12") } },
        "submitted_at": "2026-11-01T19:52:58Z", "commit_id": commit, "author_association": "COLLABORATOR"
    })
}

pub(crate) fn check_run(name: &str, sha: &str, app: &str, conclusion: Option<&str>) -> Value {
    let ended = conclusion.map(|_| "2026-11-04T01:14:52Z");
    json!({
        "id": 4, "head_sha": sha, "node_id": "MDg6Q2hlY2tSdW40", "external_id": "", "url": format!("{API}/check-runs/4"),
        "html_url": "https://github.com/runs/4", "details_url": "https://example.com", "status": if ended.is_some() { "completed" } else { "in_progress" },
        "conclusion": conclusion, "started_at": "2026-11-04T01:10:00Z", "completed_at": ended,
        "output": { "title": "Report", "summary": "", "text": "", "annotations_count": 2, "annotations_url": format!("{API}/annotations") },
        "name": name, "check_suite": { "id": 5 },
        "app": {
            "id": 1, "slug": app, "node_id": "MDExOkludGVncmF0aW9uMQ==", "owner": user("github"), "name": app, "description": "",
            "external_url": "https://example.com", "html_url": "https://github.com/apps/a", "created_at": "2017-07-08T16:18:44-04:00",
            "updated_at": "2017-07-08T16:18:44-04:00", "permissions": { "checks": "write" }, "events": ["push"]
        },
        "pull_requests": []
    })
}

pub(crate) fn workflow_run(status: &str, conclusion: Option<&str>) -> Value {
    json!({
        "id": 30433642, "name": "Build", "node_id": "MDEyOldvcmtmbG93IFJ1bjI2OTI4OQ==", "check_suite_id": 42, "head_branch": "main",
        "head_sha": "acb5820ced9479c074f688cc328bf03f341a511d", "path": ".github/workflows/staging.yml@main", "run_number": 562,
        "event": "push", "display_title": "Update README.md", "status": status, "conclusion": conclusion, "workflow_id": 159038,
        "url": format!("{API}/actions/runs/30433642"), "html_url": "https://github.com/actions/runs/30433642", "pull_requests": [],
        "created_at": "2026-11-04T19:33:08Z", "updated_at": "2026-11-04T19:33:08Z", "actor": user("octocat"), "run_attempt": 1,
        "run_started_at": "2026-11-04T19:33:08Z", "triggering_actor": user("octocat"), "repository": repository(REPO)
    })
}

pub(crate) fn deployment(id: u64, sha: &str, environment: &str, payload: Value) -> Value {
    let url = format!("{API}/repos/{REPO}/deployments/{id}");
    json!({
        "url": url, "id": id, "node_id": "MDEwOkRlcGxveW1lbnQx", "sha": sha, "ref": "1.4.0", "task": "deploy", "payload": payload,
        "original_environment": environment, "environment": environment, "description": "Deploy request from hubot",
        "creator": user("octocat"), "created_at": "2026-11-05T01:19:13Z", "updated_at": "2026-11-05T01:19:13Z",
        "statuses_url": format!("{url}/statuses"), "repository_url": format!("{API}/repos/{REPO}"),
        "transient_environment": false, "production_environment": true
    })
}

pub(crate) fn deployment_status(state: &str, at: &str) -> Value {
    json!({
        "url": format!("{API}/statuses/1"), "id": 1, "node_id": "MDE2OkRlcGxveW1lbnRTdGF0dXMx", "state": state, "creator": user("octocat"),
        "description": "Deployment finished successfully.", "environment": "production", "target_url": "https://example.com/",
        "created_at": at, "updated_at": at, "deployment_url": format!("{API}/deployments/42"),
        "repository_url": format!("{API}/repos/{REPO}"), "environment_url": "https://test-branch.lab.acme.com",
        "log_url": "https://example.com/deployment/42/output"
    })
}

pub(crate) fn label(name: &str) -> Value {
    json!({
        "id": 208045946, "node_id": "MDU6TGFiZWwyMDgwNDU5NDY=", "url": format!("{API}/labels/l"), "name": name,
        "description": "Something isn't working", "color": "f29513", "default": true
    })
}

pub(crate) fn issue(
    number: u64,
    labels: &[&str],
    created: &str,
    closed: Option<&str>,
    body: &str,
) -> Value {
    let url = format!("{API}/repos/{REPO}/issues/{number}");
    json!({
        "id": number, "node_id": "MDU6SXNzdWUx", "url": url, "repository_url": format!("{API}/repos/{REPO}"),
        "labels_url": format!("{url}/labels{{/name}}"), "comments_url": format!("{url}/comments"), "events_url": format!("{url}/events"),
        "html_url": format!("https://github.com/{REPO}/issues/{number}"), "number": number,
        "state": if closed.is_some() { "closed" } else { "open" }, "title": "Found a bug", "body": body, "user": user("octocat"),
        "labels": labels.iter().map(|name| label(name)).collect::<Vec<_>>(), "assignee": null, "assignees": [], "milestone": null, "locked": false,
        "active_lock_reason": null, "comments": 0, "closed_at": closed, "created_at": created,
        "updated_at": closed.unwrap_or(created), "author_association": "COLLABORATOR", "state_reason": null
    })
}

/// As the API lists a pull request among issues.
pub(crate) fn pull_as_issue(number: u64, labels: &[&str]) -> Value {
    let mut issue = issue(number, labels, "2026-11-01T00:00:00Z", None, "");
    issue["pull_request"] = json!({
        "url": format!("{API}/repos/{REPO}/pulls/{number}"), "html_url": "https://github.com/p",
        "diff_url": "https://github.com/p.diff", "patch_url": "https://github.com/p.patch"
    });
    issue
}

/// What the webhook of a protection rule delivers.
pub(crate) fn delivery(callback: &str, environment: &str, reference: &str, sha: &str) -> Value {
    let mut deployed = deployment(7, sha, environment, json!(""));
    deployed["ref"] = json!(reference);
    json!({
        "action": "requested", "environment": environment, "event": "push", "sha": sha, "ref": reference,
        "deployment_callback_url": callback, "deployment": deployed, "pull_requests": [], "repository": repository(REPO),
        "organization": { "login": "octo-org", "id": 2 }, "installation": { "id": 375706, "node_id": "MDIz" },
        "sender": user("olga-ops")
    })
}

/// An error, as all of the API.
pub(crate) fn problem(message: &str) -> Value {
    json!({ "message": message, "documentation_url": "https://docs.github.com/rest", "status": "403" })
}
