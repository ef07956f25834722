//! The conformance suite: what every store promises, written once over `Arc<dyn Store>` and run on SQLite and PostgreSQL.
//! A case is an async function that takes a `Rig`; the list below runs it on both.

mod actions;
mod alone;
mod deliveries;
mod inbox;
mod leases;
mod ledger;
mod messages;
mod outputs;
mod pages;
mod plugins;
mod reads;
mod rig;
mod schema;
mod settlements;
mod statuses;
mod together;
mod upkeep;
mod waits;
mod work;

/// Lists the cases once and runs each on both stores.
macro_rules! cases {
    ($($noun:ident: $($case:ident)+;)+) => {
        mod sqlite {
            $(mod $noun {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::store::$noun::$case(crate::store::rig::Rig::sqlite().await).await;
                })+
            })+
        }
        mod postgres {
            $(mod $noun {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::store::$noun::$case(crate::store::rig::Rig::postgres().await).await;
                })+
            })+
        }
    };
}

cases! {
    schema:
        migrate_twice_is_a_no_op
        hosts_may_migrate_at_once
        a_newer_schema_is_refused
        the_secret_is_made_once
        time_is_the_clock_that_was_given;
    leases:
        feeds_and_targets_keep_their_numbers
        the_only_host_gets_everything
        claiming_again_changes_nothing
        a_lease_must_be_renewed_in_time
        what_is_given_back_is_free_at_once
        an_expired_host_is_taken_over_and_fenced
        released_lanes_are_fenced
        what_is_abandoned_is_free_but_may_be_sending
        deaths_of_owners_are_counted_until_a_lane_is_calm;
    inbox:
        bytes_round_trip
        numbers_are_gapless_per_lane
        append_is_fenced_by_epoch
        append_is_fenced_by_position
        duplicates_are_kept_and_marked
        positions_advance_without_rows
        fetch_is_cut_by_rows
        fetch_is_cut_by_bytes
        a_large_batch_arrives_whole;
    deliveries:
        parts_carry_their_delivery_and_marks_are_settled
        a_delivery_grows_over_appends_and_breaks_alone
        a_fenced_append_judges_nothing
        a_duplicate_is_no_part
        an_order_is_guarded_and_bound
        equal_orders_at_once_are_one
        messages_of_ids_that_nobody_knows_wait_for_orders_in_flight
        an_order_that_was_left_is_unclear
        held_parts_are_let_go_in_pieces
        a_part_held_by_what_was_true_before_is_stale
        what_lacks_too_long_is_invalid
        every_part_is_counted_once
        stop_and_rerun_ask_the_owners_of_the_parts
        a_filter_knows_the_parts_of_a_delivery;
    work:
        blocking_rows_block_their_key
        due_rows_come_oldest_first
        running_rows_resume
        behind_rows_are_released_one_by_one
        a_row_that_stops_blocking_releases_its_key
        a_released_key_without_rows_is_free
        a_row_behind_nobody_is_due;
    reads:
        absent_things_are_absent
        entries_bindings_and_scans_are_found
        pages_go_on_after_a_key
        index_scans_find_values_that_start_with_the_prefix
        a_scan_prefix_is_bytes_not_a_pattern
        many_requests_are_answered_in_order;
    settlements:
        a_settlement_moves_the_cursor
        a_batch_can_be_looked_up
        a_foreign_epoch_is_fenced
        stale_entries_are_found
        stale_scans_by_key_are_found
        stale_scans_by_index_are_found
        stale_ids_are_found
        every_stale_message_is_reported
        a_stale_settlement_changes_nothing
        an_equal_write_is_no_change
        a_write_replaces_the_whole_index_set
        bindings_conflict_either_way
        an_equal_binding_is_no_conflict
        messages_of_one_settlement_do_not_stale_each_other;
    waits:
        an_entry_that_appears_wakes
        an_entry_that_changes_or_goes_wakes
        a_bound_id_wakes
        a_scan_wakes
        an_equal_write_wakes_nobody
        a_wait_is_woken_by_its_own_settlement
        crossing_settlements_lose_no_wake_up
        put_entries_wakes;
    ledger:
        a_store_of_all_kinds_balances
        each_damage_is_found;
    upkeep:
        each_due_time_is_given_out_once
        two_doors_share_a_duty
        what_is_needed_outlives_its_part
        a_failed_message_is_retried_after_its_part_is_gone
        a_dropped_message_supersedes_all_the_same
        published_outputs_go_with_their_time
        parts_of_open_deliveries_stay_and_accounts_add_up
        many_parts_are_read_in_order
        each_damage_below_the_floor_is_found
        messages_of_the_release_before_are_a_part
        a_file_is_kept_small;
    outputs:
        outputs_come_in_settlement_order
        output_pages_are_cut
        the_cursor_passes_foreign_settlements
        published_is_fenced_and_monotone
        a_parked_output_fails_its_message
        event_ids_are_stable;
    plugins:
        components_and_artefacts_round_trip
        the_active_plugin_is_the_last_activated
        activation_history_is_kept
        the_oldest_revision_is_of_the_living;
    messages:
        filters_narrow
        counts_and_unpublished
        one_message_is_shown_whole
        captures_hold_the_bytes
        entries_and_bindings_are_listed;
    statuses:
        work_shows_its_own_status
        ends_show_their_status
        a_plain_message_is_handled_by_its_range
        nobody_judged_it_yet;
    actions:
        a_command_is_about_chosen_messages
        a_repeated_command_is_written_once
        filters_of_commands_know_keys_times_and_reasons
        open_actions_tell_how_their_message_stands
        a_later_handled_message_supersedes
        settlements_say_what_became_of_actions
        a_fenced_settlement_applies_nothing
        the_trail_is_read_by_command_and_by_message
        revisits_are_actions_of_their_own
        pauses_hold_until_they_are_lifted
        the_newest_of_a_key_is_chosen
        all_of_a_key_run_in_order
        finished_messages_are_not_replayed
        the_newest_drops_older_ones_of_its_key
        a_replay_leaves_alone_what_a_later_message_wrote
        the_view_takes_statuses
        the_view_refuses_what_it_cannot_do;
    pages:
        open_actions_come_in_order_and_in_pages
        a_command_about_very_many_is_done_in_parts
        what_is_in_hand_and_done_already_hides_nothing
        large_messages_are_read_in_their_order
        orders_of_one_time_interleave
        a_lane_with_much_to_do_keeps_nobody_out
        a_run_that_was_simply_handled_is_known;
}
