//! What is kept, against a model that counts days one by one; and that what is kept can be restored as before.

use std::collections::{BTreeMap, HashSet};

use groundtackle_backup::{Chosen, Points, Reason, Retention};

use super::*;

/// Numbers from a seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn manifest(number: u64, created_unix_millis: u64, content: Content) -> Manifest {
    let mut point = Hex([0; 16]);
    point.0[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Manifest {
        format: 1,
        repository: Hex::default(),
        point,
        stream: "set".into(),
        network: "main".into(),
        created_unix_millis,
        tool: String::new(),
        content,
        key: Named("reader").wrap(&DataKey::from_bytes([0; 32])).unwrap(),
        packs: Vec::new(),
        segments: 0,
        items: 0,
        encoded_bytes: 0,
        index: Vec::new(),
        fencing: None,
    }
}

fn content(source: Numbers, epoch: u8) -> Content {
    source.since(epoch).end.unwrap().content
}

/// Bases and deltas of two branches, in three epochs, some of them linked to nothing, some contradicting each other where
/// nobody watched.
fn random_points(random: &mut Random) -> Vec<Manifest> {
    let trunk = chain(30, Vec::new(), 1);
    let branch = chain(12, trunk[..20].to_vec(), 2);
    let mut time = 1_700_000_000_000 + random.below(400 * 86_400) * 1_000;
    let mut points = Vec::new();
    for number in 0..4 + random.below(20) {
        let scale = [60, 3_600, 86_400, 30 * 86_400][random.below(4) as usize];
        time += random.below(scale) * 1_000;
        let blocks = if random.below(4) == 0 {
            &branch
        } else {
            &trunk
        };
        let at = random.below(blocks.len() as u64 - 1) as usize;
        let length = 1 + random.below(10) as usize;
        let last = (at + length).min(blocks.len() - 1);
        let epoch = 1 + (random.below(5) == 0) as u8;
        let content = match random.below(8) {
            0 => {
                let mut other = blocks[at].clone();
                if random.below(2) == 0 {
                    other.after.insert(1_000_000 + random.below(2));
                    other.entry.set = summary(&other.after);
                }
                content(Numbers::base(&other), 0)
            }
            1 => content(
                Numbers::read_during(&blocks[at].after, &blocks[at + 1..=last], &blocks[last]),
                epoch,
            ),
            2 => content(Numbers::base(&blocks[at]), epoch),
            _ => content(Numbers::delta(&blocks[at..=last]), epoch),
        };
        points.push(manifest(number, time, content));
    }
    points.sort_by_key(|point| (point.created_unix_millis, point.point));
    points
}

fn random_retention(random: &mut Random) -> Retention {
    let mut count = || (random.below(3) == 0).then(|| random.below(5) as u32);
    let mut retention = Retention::default();
    retention.last = count();
    retention.hourly = count();
    retention.daily = count();
    retention.weekly = count();
    retention.monthly = count();
    retention.yearly = count();
    retention.every_blocks = count().map(|blocks| blocks * 5 + 1);
    retention
}

/// Year, month and days, counted one by one.
fn date(unix_millis: u64) -> (u64, u64) {
    let (mut year, mut days) = (1970, unix_millis / 86_400_000);
    loop {
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let february = if leap { 29 } else { 28 };
        for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
            if days < length {
                return (year, month);
            }
            days -= length;
        }
        year += 1;
    }
}

fn label(reason: Reason, retention: &Retention, number: usize, point: &Manifest) -> String {
    let time = point.created_unix_millis;
    let (year, month) = date(time);
    let day = time / 86_400_000;
    match reason {
        Reason::Last => number.to_string(),
        Reason::Hourly => format!("{day} {}", time % 86_400_000 / 3_600_000),
        Reason::Daily => day.to_string(),
        // The Monday: 5 January 1970 was one.
        Reason::Weekly => (0..7)
            .map(|back| day - back)
            .find(|day| day % 7 == 4)
            .unwrap()
            .to_string(),
        Reason::Monthly => format!("{year} {month}"),
        Reason::Yearly => year.to_string(),
        Reason::EveryBlocks => {
            let height = point.content.position().unwrap().height;
            (height / retention.every_blocks.unwrap()).to_string()
        }
        _ => String::new(),
    }
}

fn naive(retention: &Retention, points: &[Manifest]) -> BTreeMap<Hex<16>, Vec<Reason>> {
    let unlimited = retention.every_blocks.map(|_| u32::MAX);
    let rules = [
        (Reason::Newest, Some(1)),
        (Reason::Last, retention.last),
        (Reason::Hourly, retention.hourly),
        (Reason::Daily, retention.daily),
        (Reason::Weekly, retention.weekly),
        (Reason::Monthly, retention.monthly),
        (Reason::Yearly, retention.yearly),
        (Reason::EveryBlocks, unlimited),
    ];
    let mut newest_first = points.to_vec();
    newest_first.sort_by_key(|point| {
        let height = point.content.position().unwrap().height;
        std::cmp::Reverse((point.created_unix_millis, height, point.point))
    });
    // What was made at one time and leads to one block counts once, and stays as a base and as the longest changes.
    let form = |point: &Manifest| {
        let at = point.content.position().unwrap().hash;
        let epoch = *point.content.epoch();
        let name = (epoch == Hex([0; 16])).then_some(point.point);
        (point.created_unix_millis, epoch, at, name)
    };
    let all = newest_first.clone();
    let mut counted = HashSet::new();
    newest_first.retain(|point| counted.insert(form(point)));
    let stays = |point: &Manifest| {
        let same = all.iter().filter(|other| form(other) == form(point));
        let (bases, changes): (Vec<_>, Vec<_>) =
            same.partition(|point| matches!(point.content, Content::Base { .. }));
        let most = changes.iter().map(|point| point.content.blocks().len());
        let most = most.max().unwrap_or(0);
        let mut longest = changes.into_iter();
        let longest = longest.find(|point| point.content.blocks().len() == most);
        bases.into_iter().take(1).chain(longest)
    };
    let mut keep = BTreeMap::<_, Vec<_>>::new();
    for (reason, count) in rules.into_iter().filter(|(_, count)| count.is_some()) {
        let mut seen = HashSet::new();
        for (number, point) in newest_first.iter().enumerate() {
            let new = !seen.contains(&label(reason, retention, number, point));
            if new && (seen.len() as u32) < count.unwrap_or(0) {
                seen.insert(label(reason, retention, number, point));
                for point in stays(point) {
                    keep.entry(point.point).or_default().push(reason);
                }
            }
        }
    }
    keep
}

fn chosen(retention: &Retention, points: &[Manifest]) -> Chosen {
    let mut all = Points::default();
    all.usable = points.to_vec();
    retention.choose(&all, "set").unwrap()
}

/// What the block of a point leads to, by points of its own epoch and by all.
fn led_to(points: &[Manifest], point: &Manifest) -> [Option<(Hex<16>, SetSummary)>; 2] {
    let epoch = point.content.epoch();
    let own = points.iter().filter(|other| other.content.epoch() == epoch);
    let at = At::Block(point.content.position().unwrap().hash);
    [own.cloned().collect(), points.to_vec()].map(|points| {
        let plan = Plan::find(&points, "set", at).ok()?;
        Some((*plan.base.content.epoch(), plan.set))
    })
}

#[test]
fn what_stays_is_what_the_rules_say_and_can_be_restored_as_before() {
    let (mut gone, mut needed, mut runs) = (0, 0, 0);
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let points = random_points(&mut random);
        let retention = random_retention(&mut random);
        let mut all = Points::default();
        all.usable = points.clone();
        let Ok(chosen) = retention.choose(&all, "set") else {
            let counts = [
                retention.last,
                retention.hourly,
                retention.daily,
                retention.weekly,
                retention.monthly,
                retention.yearly,
            ];
            assert!(counts.iter().all(|count| count.unwrap_or(0) == 0));
            assert_eq!(retention.every_blocks, None);
            continue;
        };
        runs += 1;
        let keep: BTreeMap<_, _> = chosen.keep.iter().cloned().collect();
        assert_eq!(keep, naive(&retention, &points), "seed {seed}");
        let stays: Vec<_> = points
            .iter()
            .filter(|point| !chosen.go.contains(&point.point))
            .cloned()
            .collect();
        assert_eq!(stays.len(), chosen.keep.len() + chosen.needed.len());
        assert_eq!(stays.len() + chosen.go.len(), points.len());
        for point in &stays {
            let [own, meant] = led_to(&points, point);
            let [own_after, meant_after] = led_to(&stays, point);
            assert!(own.is_none() || own == own_after, "seed {seed}: {point:?}");
            assert!(meant.is_none() || meant_after.is_some(), "seed {seed}");
            if meant.is_some_and(|(epoch, _)| epoch == *point.content.epoch()) {
                assert_eq!(meant, meant_after, "seed {seed}: {point:?}");
            }
        }
        let tip = |points: &[Manifest]| {
            let plan = Plan::find(points, "set", At::Latest).ok();
            plan.map(|plan| (plan.position, plan.set))
        };
        assert_eq!(tip(&points), tip(&stays), "seed {seed}");
        gone += chosen.go.len();
        needed += chosen.needed.len();
    }
    assert!(
        gone > 1_000 && needed > 1_000 && runs > 1_000,
        "{gone} {needed} {runs}"
    );
}

#[test]
fn deltas_that_nothing_needs_go() {
    let blocks = chain(41, Vec::new(), 1);
    let mut points = vec![manifest(0, 0, content(Numbers::base(&blocks[0]), 1))];
    for day in 1..=4 {
        let part = &blocks[day * 10 - 10..=day * 10];
        let delta = content(Numbers::delta(part), 1);
        points.push(manifest(day as u64, day as u64 * 86_400_000, delta));
    }
    let names: Vec<_> = points.iter().map(|point| point.point).collect();
    let mut retention = Retention::default();
    retention.last = Some(1);
    // The last one is at the end of all.
    let all = chosen(&retention, &points);
    assert_eq!(all.keep, [(names[4], vec![Reason::Newest, Reason::Last])]);
    assert_eq!((all.needed, all.go), (names[..4].to_vec(), Vec::new()));
    // With a base at the third one's end it needs but that.
    let base = content(Numbers::base(&blocks[30]), 1);
    points.insert(4, manifest(9, 3 * 86_400_000 + 1, base));
    let all = chosen(&retention, &points);
    assert_eq!(
        (all.needed, all.go),
        (vec![points[4].point], names[..4].to_vec())
    );
    // By blocks: one of 0 to 24, and one of those above.
    let mut retention = Retention::default();
    retention.every_blocks = Some(25);
    let all = chosen(&retention, &points);
    let kept: Vec<_> = all.keep.iter().map(|(name, _)| *name).collect();
    assert_eq!(kept, [names[2], names[4]]);
    // Another stream's are not looked at.
    assert_eq!(
        retention.choose(&Points::default(), "set").unwrap(),
        Chosen::default()
    );
}

#[test]
fn rules_that_keep_nothing_are_refused() {
    let mut none = Retention::default();
    for retention in [none.clone(), {
        none.daily = Some(0);
        none.clone()
    }] {
        let error = retention.choose(&Points::default(), "set").unwrap_err();
        assert!(error.to_string().contains("all would go"), "{error}");
    }
    none.last = Some(1);
    none.every_blocks = Some(0);
    assert!(none.choose(&Points::default(), "set").is_err());
    let read = |text| serde_json::from_str::<Retention>(text);
    assert_eq!(read(r#"{"daily":3}"#).unwrap().daily, Some(3));
    assert!(read(r#"{"dayly":3}"#).is_err());
}

/// Each first and last millisecond of days that are easily got wrong.
#[test]
fn months_and_years_end_where_they_do() {
    let mut retention = Retention::default();
    (retention.monthly, retention.yearly) = (Some(9), Some(9));
    // 29 February and 1 March 2024, 31 December 2024 and 1 January 2025, 28 February and 1 March 2100, the first days of all.
    for first in [
        1_709_251_200_000_u64,
        1_735_689_600_000,
        4_107_542_400_000,
        2_678_400_000,
    ] {
        let points: Vec<_> = [first - 1, first]
            .into_iter()
            .enumerate()
            .map(|(number, time)| {
                let base = content(Numbers::base(&block(None, 1)), 1);
                manifest(number as u64, time, base)
            })
            .collect();
        let kept = chosen(&retention, &points).keep;
        assert_eq!(kept.len(), 2);
        let year_too = first == 1_735_689_600_000;
        assert_eq!(kept[0].1.contains(&Reason::Yearly), year_too, "{first}");
        assert_ne!(date(first - 1), date(first));
    }
}

/// Neither trees nor sets that nobody watched are forms of each other, whenever they were made.
#[test]
fn what_was_made_at_one_time_is_not_the_same_for_that() {
    let tree = |number| {
        let content = Content::Tree {
            entries: 1,
            bytes: 0,
            blake3: Hex([number as u8; 32]),
            number: 0,
            uses: Vec::new(),
        };
        manifest(number, 1_700_000_000_000, content)
    };
    let blocks = chain(3, Vec::new(), 1);
    let mut other = blocks[2].clone();
    other.after.insert(1_000_000);
    other.entry.set = summary(&other.after);
    let set = |number, block: &Block| {
        manifest(number, 1_700_000_000_000, content(Numbers::base(block), 0))
    };
    let mut retention = Retention::default();
    retention.last = Some(2);
    for points in [[tree(1), tree(2)], [set(1, &blocks[2]), set(2, &other)]] {
        let chosen = chosen(&retention, &points);
        assert_eq!((chosen.keep.len(), chosen.go.len()), (2, 0), "{chosen:?}");
    }
}
