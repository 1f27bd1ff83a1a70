//! Messages of Discord, within its limits
//! (<https://discord.com/developers/docs/resources/message#embed-object-embed-limits>).

use groundtackle_health_check::Message;
use groundtackle_health_check_notify_webhook::Item;
use serde::Serialize;

use crate::channel::Note;
use crate::text::{escaped, length};

/// Of all texts in the embeds of a message.
const MAX_ALL: usize = 6000;
/// Of fields in an embed.
const MAX_FIELDS: usize = 25;
/// Of a field's name.
const MAX_NAME: usize = 256;
/// Of a field's value.
const MAX_VALUE: usize = 1024;
/// Of the name of what tells: far below the 2000 of a content.
const MAX_SERVICE: usize = 200;
/// Of a note's line.
const MAX_LINE: usize = 1000;

const RED: u32 = 0x00d0_2f2f;
const GREEN: u32 = 0x002e_7d32;

#[derive(Debug, Serialize)]
pub(crate) struct Post {
    content: String,
    embeds: Vec<Embed>,
    /// None: neither names nor details call anybody.
    allowed_mentions: Mentions,
}

#[derive(Debug, Serialize)]
struct Mentions {
    parse: [&'static str; 0],
}

#[derive(Debug, Serialize)]
struct Embed {
    color: u32,
    fields: Vec<Field>,
}

#[derive(Debug, Serialize)]
struct Field {
    name: String,
    value: String,
}

/// An item's texts without its detail, which gets what room is left.
struct Short<'a> {
    name: String,
    value: String,
    detail: &'a str,
    down: bool,
}

impl<'a> Short<'a> {
    fn new(item: &'a Item) -> Self {
        let mark = if item.down { "🔴 " } else { "🟢 " };
        let room = MAX_NAME.saturating_sub(length(mark));
        let mut value = escaped(&item.line(), 300);
        if let Some(millis) = item.since_unix_millis {
            // Discord shows it in the reader's own time.
            value += &format!(", since <t:{}:f>", millis / 1000);
        }
        Self {
            name: format!("{mark}{}", escaped(&item.name, room)),
            value,
            detail: item
                .detail
                .as_deref()
                .filter(|_| item.down)
                .unwrap_or_default(),
            down: item.down,
        }
    }

    fn length(&self) -> usize {
        length(&self.name).saturating_add(length(&self.value))
    }
}

/// A message as posts: one, unless its names alone take more room than one has.
pub(crate) fn posts(service: &str, message: &Message) -> Vec<Post> {
    let items: Vec<Item> = message.items.iter().filter_map(Item::new).collect();
    let down = items.iter().filter(|item| item.down).count();
    let up = items.len().saturating_sub(down);
    let mut content = format!("{}: {down} down, {up} over", escaped(service, MAX_SERVICE));
    if message.lost > 0 {
        content += &format!(
            " ({} changes could not be told when they came)",
            message.lost
        );
    }
    let mut groups: Vec<Vec<Short<'_>>> = Vec::new();
    let mut used = MAX_ALL;
    for short in items.iter().map(Short::new) {
        let takes = short.length();
        match groups.last_mut() {
            Some(group) if group.len() < MAX_FIELDS && used.saturating_add(takes) <= MAX_ALL => {
                used = used.saturating_add(takes);
                group.push(short);
            }
            _ => {
                used = takes;
                groups.push(vec![short]);
            }
        }
    }
    let post = |group: Vec<Short<'_>>| {
        let used: usize = group.iter().map(Short::length).sum();
        let room = MAX_ALL.saturating_sub(used) / group.len().max(1);
        let color = if group.iter().any(|short| short.down) {
            RED
        } else {
            GREEN
        };
        let fields = group.into_iter().map(|short| field(short, room)).collect();
        Post {
            content: content.clone(),
            embeds: vec![Embed { color, fields }],
            allowed_mentions: Mentions { parse: [] },
        }
    };
    groups.into_iter().map(post).collect()
}

/// A note as a post. Fields beyond the last are counted in it.
pub(crate) fn post_of(note: &Note) -> Post {
    // Discord refuses what is empty.
    let shown = |text: &str, limit| match escaped(text, limit) {
        shown if shown.trim().is_empty() => "-".to_owned(),
        shown => shown,
    };
    let (own, more) = match note.fields.len() {
        0..=MAX_FIELDS => (note.fields.len(), 0),
        all => (MAX_FIELDS - 1, all.saturating_sub(MAX_FIELDS - 1)),
    };
    let rest = ("…".to_owned(), format!("{more} more"));
    let fields = note.fields.iter().take(own);
    let fields: Vec<_> = fields.chain((more > 0).then_some(&rest)).collect();
    // The same room for each, of which its name takes a half at most.
    let share = MAX_ALL.checked_div(fields.len()).unwrap_or(MAX_ALL);
    let fields = fields.into_iter().map(|(name, value)| {
        let name = shown(name, MAX_NAME.min(share / 2));
        let room = MAX_VALUE.min(share.saturating_sub(length(&name)));
        let value = shown(value, room);
        Field { name, value }
    });
    let fields: Vec<_> = fields.collect();
    let embed = Embed {
        color: note.color,
        fields,
    };
    Post {
        content: shown(&note.line, MAX_LINE),
        embeds: match embed.fields.is_empty() {
            true => Vec::new(),
            false => vec![embed],
        },
        allowed_mentions: Mentions { parse: [] },
    }
}

fn field(short: Short<'_>, room: usize) -> Field {
    let Short {
        name,
        mut value,
        detail,
        ..
    } = short;
    let room = room.min(MAX_VALUE.saturating_sub(length(&value)));
    // Less says nothing.
    if !detail.is_empty() && room > 10 {
        value += "\n";
        value += &escaped(detail, room.saturating_sub(1));
    }
    Field { name, value }
}
