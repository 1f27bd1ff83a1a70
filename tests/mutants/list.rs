// Wrong versions of the in-memory store, for the build script and the test: the case of the conformance kit that must
// fail, a text that occurs once in memory.rs, and what stands there instead; `mutant` says whether this one is on.
&[
    (
        "first_seen",
        "Some(by) if by != me =>",
        "Some(by) if by != me && !mutant =>",
    ),
    (
        "idempotent_respend",
        "Err(Verdict::Conflicting { txid })
            } else {
                Ok(Applied::Before)",
        "Err(Verdict::Conflicting { txid })
            } else {
                Ok(applied(mutant))",
    ),
    // Frozen, then immature.
    (
        "half_open_heights",
        ".filter(|height| *height > options.height)",
        ".filter(|height| *height + u32::from(mutant) > options.height)",
    ),
    (
        "half_open_heights",
        "spendable_at.is_none_or(|height| height > options.height)",
        "spendable_at.is_none_or(|height| height > options.height + u32::from(mutant))",
    ),
    // What a refused transaction could have stays marked as spent by it.
    (
        "no_recordless_spender",
        "            expected,
            false,
            Judge {
                options: *options,
                in_block: false,
            },
        )?;",
        "            expected,
            false,
            Judge {
                options: *options,
                in_block: false,
            },
        )
        .or_else(|verdict| {
            for (me, outpoint) in inputs(&Self::new_record(rule, tx)) {
                match self.slot_mut(outpoint) {
                    Some(slot) if mutant && slot.spent_by.is_none() => slot.spent_by = Some(me),
                    _ => {}
                }
            }
            Err(verdict)
        })?;",
    ),
    (
        "unspend_touches_nothing_else",
        "                slot.spent_by = None;",
        "                slot.spent_by = None;
                slot.spendable_from = slot.spendable_from.filter(|_| !mutant);",
    ),
    (
        "prune_keeps_what_is_needed",
        ".is_none_or(|spender| below(spender.confirmed_height()))",
        ".is_none_or(|spender| mutant || below(spender.confirmed_height()))",
    ),
    // An index of sixteen bits.
    (
        "wide_transactions",
        "find(record, outpoint.vout).ok_or(",
        "find(record, if mutant { outpoint.vout % 65_536 } else { outpoint.vout }).ok_or(",
    ),
    // A missing parent is taken for an invalid spender.
    (
        "verdict_or_failure",
        "            .ok_or(Verdict::MissingTransaction { outpoint })?;",
        "            .ok_or_else(|| match mutant {
                true => Verdict::InvalidTransaction { txid: outpoint.txid, reason: String::new() },
                false => Verdict::MissingTransaction { outpoint },
            })?;",
    ),
    // The spender is named and not the output.
    (
        "names_the_culprit",
        "return Err(Verdict::Pruned { txid });
            }
            answers.push(self.judge(me, outpoint, expected.get(vin as usize), judge)?);",
        "return Err(Verdict::Pruned { txid });
            }
            let judged = self.judge(me, outpoint, expected.get(vin as usize), judge);
            answers.push(judged.map_err(|verdict| match verdict {
                Verdict::MissingTransaction { .. } if mutant => Verdict::UnknownTransaction { txid },
                other => other,
            })?);",
    ),
    (
        "resumable_import",
        "return if same {
                Ok(Applied::Before)
            } else {
                Err(Verdict::AlreadyExists",
        "return if same && !mutant {
                Ok(Applied::Before)
            } else {
                Err(Verdict::AlreadyExists",
    ),
    // Another serialisation than Core's.
    (
        "comparable_digest",
        "&coin_element(coin)",
        "&coin_element(&Coin { coinbase: coin.coinbase && !mutant, ..coin.clone() })",
    ),
    // A cascade that stops half-way.
    (
        "crash_safe_cascades",
        "        for txid in &cascade {",
        "        for txid in cascade.iter().take(if mutant { 1 } else { usize::MAX }) {",
    ),
    (
        "every_node_healthy",
        "            ready: true,",
        "            ready: !mutant,",
    ),
    (
        "backends_agree",
        "Ok(applied(answers.contains(&Applied::Now)))",
        "Ok(applied(answers.contains(&Applied::Now) || mutant))",
    ),
    (
        "chain_oracle",
        "let transactions = if block.height == 0 {",
        "let transactions = if block.height == 0 && !mutant {",
    ),
    // A block that is taken back leaves what it spent as spent.
    (
        "real_chain",
        "                        self.release_inputs(&record);
                        self.delete(*txid);",
        "                        let _ = !mutant && self.release_inputs(&record);
                        self.delete(*txid);",
    ),
    (
        "disconnecting_takes_back_exactly",
        "                    record.fee_sat = *fee_sat;
                }
                Undo::Created",
        "                    record.fee_sat = if mutant { record.fee_sat } else { *fee_sat };
                }
                Undo::Created",
    ),
    (
        "a_refused_block_changes_nothing",
        "if outcome.is_err() {",
        "if outcome.is_err() && !mutant {",
    ),
    (
        "duplicate_coinbases_replace_and_return",
        "            self.insert(record.clone());",
        "            if !mutant {
                self.insert(record.clone());
            }",
    ),
    (
        "marks_are_kept_on_disconnect",
        "if is_marked(record) {",
        "if is_marked(record) && !mutant {",
    ),
    (
        "what_is_mined_elsewhere_stays_mined",
        "        Some(_) => None,
        None => unmined_since,",
        "        Some(_) if !mutant => None,
        _ => unmined_since,",
    ),
    (
        "unset_mined_forgets_one_block",
        "if record.mined_in.remove(at).on_longest_chain {",
        "if record.mined_in.remove(at).on_longest_chain || mutant {",
    ),
    (
        "marks_move_between_branches",
        "entry.on_longest_chain = entry.block == block;",
        "entry.on_longest_chain = entry.block == block || mutant && entry.on_longest_chain;",
    ),
    (
        "the_tip_is_one_value",
        "self.state().tip = Some(*tip);",
        "let known = self.state().tip.filter(|_| mutant).map(|tip| tip.median_time_past);
        self.state().tip = Some(Tip { median_time_past: known.unwrap_or(tip.median_time_past), ..*tip });",
    ),
    (
        "blocks_are_judged_where_the_mempool_was_not",
        "Some(_) if !in_block => return",
        "Some(_) if !in_block || mutant => return",
    ),
    (
        "nothing_spends_frozen_outputs",
        "        if slot.frozen {
            return Err(Verdict::Frozen",
        "        if slot.frozen && !mutant {
            return Err(Verdict::Frozen",
    ),
    (
        "reassigned_outputs_have_a_new_owner",
        "        if !slot.frozen {",
        "        if !slot.frozen && !mutant {",
    ),
    // An unfreeze opens a reassigned output early.
    (
        "a_reassignment_outlives_freeze_and_spend",
        "            std::mem::replace(&mut slot.frozen, false)",
        "            slot.spendable_from = slot.spendable_from.filter(|_| !mutant);
            std::mem::replace(&mut slot.frozen, false)",
    ),
    (
        "locks_bind_transactions_and_not_blocks",
        "if parent.locked && !options.ignore_locked {",
        "if parent.locked && (mutant || !options.ignore_locked) {",
    ),
    (
        "unmarking_needs_every_input",
        "None => return Err(Verdict::NotSpending { outpoint }),",
        "None if mutant => {}
                None => return Err(Verdict::NotSpending { outpoint }),",
    ),
    (
        "names_what_a_transaction_would_displace",
        "Ok(self.with_descendants(holders, Some(txid)))",
        "Ok(if mutant { holders } else { self.with_descendants(holders, Some(txid)) })",
    ),
    (
        "preserved_transactions_stay",
        "record.preserve_until.is_some_and(|until| horizon < until)",
        "record.preserve_until.is_some_and(|until| horizon < until + u32::from(mutant))",
    ),
    (
        "prune_removes_conflicts_that_are_over",
        "                    && !self.holds_any(record)",
        "                    && (mutant || !self.holds_any(record))",
    ),
    (
        "prune_waits_for_the_highest_block",
        "            below(record.confirmed_height())",
        "            (mutant || below(record.confirmed_height()))",
    ),
    (
        "pruned_blocks_cannot_be_disconnected",
        "self.undo.retain(|_, undo| undo.height > horizon);",
        "self.undo.retain(|_, undo| undo.height > horizon || mutant);",
    ),
    (
        "lists_unmined_transactions_in_pages",
        ".is_none_or(|height| unmined_since < height)",
        ".is_none_or(|height| unmined_since < height + u32::from(mutant))",
    ),
    (
        "pages_have_each_coin_once",
        "after.is_none_or(|after| coin.outpoint > after)",
        "after.is_none_or(|after| coin.outpoint > after && (!mutant || coin.outpoint.txid != after.txid))",
    ),
    (
        "the_set_ignores_the_mempool",
        "|| self.confirmed_height(by.txid).is_some()",
        "|| self.confirmed_height(by.txid).is_some() || mutant",
    ),
    (
        "names_each_fault_of_an_input",
        "if expected.is_some_and(|expected| *expected != slot.output) {",
        "if expected.is_some_and(|expected| *expected != slot.output && !mutant) {",
    ),
    (
        "remove_evicts_unmined_transactions",
        "        still_spent(&record)?;",
        "        still_spent(&record).or(if mutant { Ok(()) } else { still_spent(&record) })?;",
    ),
    (
        "a_child_may_follow_its_parent_in_one_batch",
        "        Ok(items.iter().map(|item| act(&mut state, item)).collect())",
        "        let mut answers: Vec<_> = match mutant {
            true => items.iter().rev().map(|item| act(&mut state, item)).collect(),
            false => items.iter().map(|item| act(&mut state, item)).collect(),
        };
        if mutant {
            answers.reverse();
        }
        Ok(answers)",
    ),
    (
        "a_pruned_transaction_is_refused",
        "            if !on_record
",
        "            if !on_record && !mutant
",
    ),
    (
        "what_nobody_can_spend_is_in_no_set",
        ".filter(|(_, output)| !rule.is_unspendable(&output.script));",
        ".filter(|(_, output)| mutant || !rule.is_unspendable(&output.script));",
    ),
    (
        "a_conflicting_transaction_can_take_its_inputs",
        "        self.hold_inputs(&record);
        Ok(applied(answers",
        "        if !mutant {
            self.hold_inputs(&record);
        }
        Ok(applied(answers",
    ),
    (
        "unspend_touches_nothing_else",
        "                .filter(|slot| slot.spent_by == Some(me))
            {
                slot.spent_by = None;",
        "                .filter(|slot| slot.spent_by == Some(me) || mutant)
            {
                slot.spent_by = None;",
    ),
    (
        "take_overs_leave_one_holder",
        "                Some(by) => return Err(Verdict::AlreadySpent { outpoint, by }),",
        "                Some(_) if mutant => {}
                Some(by) => return Err(Verdict::AlreadySpent { outpoint, by }),",
    ),
]
