//! What every store must do, beyond the types of its traits: many small cases, each on a fresh store.
//!
//! An implementation runs them all with `conformance!(fixture)`, where `fixture` is an
//! `async fn() -> anyhow::Result<Option<Fresh<S>>>`; without a store, of which the fixture has said loudly
//! why, every case is skipped. A case that is not in the macro's list would run nowhere,
//! so a test counts them.

pub mod access;
pub mod agents;
pub mod churn;
pub mod claims;
pub mod deletion;
pub mod documents;
pub mod domains;
pub mod enrolment;
pub mod events;
pub mod halts;
pub mod instances;
pub mod keys;
pub mod leases;
pub mod pools;
pub mod providers;
pub mod renames;
pub mod reports;
pub mod rollouts;
pub mod sagas;
pub mod servers;
pub mod stats;
pub mod usage;
pub mod verifications;
pub(crate) mod world;

use std::{any::Any, sync::Arc};

/// A store with nothing in it, and what must outlive it (its directory, its schema).
pub struct Fresh<S> {
    pub store: Arc<S>,
    pub guard: Box<dyn Any + Send>,
}

/// What a case ends with.
pub type Outcome = anyhow::Result<()>;

/// Makes a test of each case of the suite.
#[macro_export]
macro_rules! conformance {
    ($fixture:ident) => {
        $crate::conformance_cases! { $fixture;
            servers {
                a_planned_server_reads_back_as_planned,
                a_name_is_used_once_for_ever,
                creating_follows_planned_and_may_be_repeated,
                a_created_server_boots_and_is_trusted_without_an_instance,
                recording_the_same_facts_again_is_done_other_facts_are_not_possible,
                an_address_is_trusted_for_one_server_only,
                a_mapped_address_is_the_same_address,
                each_session_raises_the_epoch,
                a_session_names_its_holder_until_it_is_closed,
                the_end_of_an_old_session_leaves_the_new_ones_holder,
                an_unknown_or_revoked_server_gets_no_session,
                a_revoked_server_is_out_of_trust_and_no_route_leads_to_it,
                a_server_that_is_revoked_before_it_has_an_address_is_never_trusted,
                a_server_past_claimed_gets_no_session,
                a_failed_server_is_out_of_trust_and_is_deleted_by_way_of_deleting,
                whatever_is_not_claimed_can_be_retired_once,
                a_claimed_server_is_neither_retired_nor_failed,
                a_server_does_not_skip_draining_on_its_way_out,
                gone_servers_leave_the_list_and_the_rest_is_oldest_first,
                a_lost_server_that_is_nobodys_has_failed_and_is_out_of_trust,
                the_instance_of_a_lost_server_has_failed_and_has_none,
            }
            stats {
                the_last_word_of_each_server_is_kept,
                stats_of_another_session_or_of_a_stranger_are_ignored,
                nothing_is_known_of_what_a_server_takes_that_is_gone,
            }
            pools {
                a_pool_that_was_never_touched_stands_well,
                failures_count_in_a_row_and_only_the_servers_own,
                a_pause_and_its_end_are_told,
                a_halt_is_told_once_and_ended_by_resuming,
                a_hold_lasts_and_is_told_once_while_it_does,
                a_pool_below_its_target_is_told_once_and_its_recovery_only_then,
                a_placement_is_left_alone_for_as_long_as_was_said,
                arrivals_are_those_of_the_pool_since_then,
                a_server_was_warm_for_the_first_time_once,
            }
            providers {
                a_provider_keeps_its_key_until_it_is_given_another_or_moves,
                a_model_has_one_meaning_in_a_tier,
                limits_are_written_whole_and_gone_with_their_instance,
            }
            keys {
                a_customers_key_is_for_one_provider_at_one_address,
                a_purged_instance_has_no_keys,
                whatever_is_sealed_is_found_and_sealed_again_once,
            }
            usage {
                what_was_used_adds_up_by_day_model_and_payer,
                records_are_read_once_each_in_their_order,
                an_instance_without_a_rest_is_told_of_once_a_day,
            }
            agents {
                an_agent_is_what_it_said_last,
                a_server_wants_what_the_newest_rollout_wants_of_it,
                what_became_of_an_agent_is_told_once,
                a_rollout_that_failed_somewhere_goes_nowhere_else,
            }
            sagas {
                steps_read_back_in_the_order_in_which_they_were_taken,
            }
            verifications {
                one_image_is_tried_at_a_time,
                wishes_at_once_are_answered_with_one_trial,
                a_trial_begins_once_with_its_server,
                a_trial_whose_time_is_over_gets_no_server,
                a_trial_ends_once_and_is_told,
                the_last_word_about_an_image_counts_and_the_last_good_one_is_found,
                what_is_in_an_image_is_noted_while_it_is_tried,
                a_boot_is_noted_from_enrolment_to_the_first_time_that_it_is_warm,
            }
            reports {
                a_warm_report_makes_a_booting_server_warm,
                a_report_of_an_old_session_is_ignored,
                a_report_of_a_revoked_or_draining_server_is_ignored,
                a_failed_report_fails_a_server_and_takes_its_trust,
                a_failed_report_does_not_fail_a_claimed_server,
                a_claimed_servers_report_reaches_its_instance,
                a_repeated_report_tells_nothing_twice,
                an_agent_cannot_observe_what_was_never_written,
                an_agent_cannot_make_news_of_generations_that_are_none,
                a_warm_server_that_is_not_warm_any_more_boots_again,
                an_unheard_warm_server_is_not_given_away,
                an_unheard_claimed_server_stays_claimed_with_its_health_unknown,
            }
            enrolment {
                a_token_is_spent_once,
                of_two_redemptions_at_once_one_wins,
                a_token_of_another_server_is_unknown_and_not_audited,
                an_expired_token_is_refused,
                another_address_is_refused_and_the_token_stays,
                a_server_whose_address_is_not_recorded_is_too_early_and_not_audited,
                a_retired_servers_token_is_refused_and_audited,
                an_audit_is_an_event,
            }
            claims {
                a_new_instance_gets_the_oldest_warm_server_of_its_tier,
                a_claim_is_whole,
                without_a_warm_server_it_waits_and_the_pool_is_told_empty,
                nobody_overtakes_who_waits,
                who_waits_is_served_in_order,
                a_pending_claim_is_whole,
                a_revoked_server_is_not_claimed,
                a_taken_name_takes_no_server,
                a_taken_host_is_a_taken_name,
                a_taken_external_id_names_its_holder,
                sixty_four_at_once_on_eight_servers,
                refillers_at_once_give_each_server_once,
                a_retirement_and_a_claim_at_once_have_one_winner,
                an_interrupted_create_leaves_all_or_nothing,
                a_server_is_a_destination_from_its_boot_on_and_its_names_come_and_go,
                a_door_that_was_given_is_known_wherever_routes_lead_to_it,
            }
            churn {
                customers_at_once_leave_everything_whole,
            }
            instances {
                running_ends_the_create_operation,
                only_a_starting_instance_becomes_running,
                a_failed_instance_leaves_the_queue,
                a_running_instance_does_not_fail_by_itself,
                an_instance_is_found_by_name_and_external_id_until_purged,
                pages_are_oldest_first_and_go_on,
                basic_auth_is_set_and_removed_in_the_route,
                nothing_is_found_by_unknown_ids,
            }
            documents {
                a_change_replaces_the_document_with_an_operation_under_way,
                bounds_for_visitors_come_with_a_document_and_are_in_the_route,
                networks_come_with_a_document_and_stay_until_another_takes_them_away,
                where_channels_take_web_hooks_follows_the_configuration_and_is_in_the_route,
                a_change_ends_when_its_generation_is_observed,
                a_rejected_configuration_fails_its_operation,
                a_stale_change_is_refused,
                one_change_at_a_time,
                a_change_during_creation_is_refused,
                a_change_of_no_instance_is_refused,
                a_mislabelled_document_is_an_error,
                of_two_changes_at_once_one_wins,
            }
            domains {
                a_name_is_asked_for_by_many_and_held_by_one,
                of_two_who_prove_a_name_at_once_one_holds_it,
                a_name_leads_to_its_instance_only_while_it_is_served,
                an_instance_asks_for_so_many_names_and_no_more,
                whatever_is_due_is_looked_at_unless_its_instance_is_deleted,
                an_order_that_failed_waits_for_its_time_whoever_asks,
                orders_are_counted_for_each_instance_and_for_all,
                a_purged_instance_has_no_names_and_a_deleted_one_keeps_them,
                a_certificate_is_of_a_proven_name_and_shown_while_it_is_served,
                documents_that_are_behind_are_found,
                a_challenge_is_answered_until_it_expires_and_an_account_is_kept,
            }
            renames {
                a_renamed_instance_is_found_by_its_new_name_and_the_old_one_leads_there,
                an_old_name_is_nobody_elses_until_it_has_expired,
                a_name_that_somebody_has_or_had_lately_is_refused_and_nothing_changes,
                an_instance_may_have_its_old_name_back,
                an_instance_keeps_only_so_many_names_from_others,
            }
            rollouts {
                an_order_ends_when_its_agent_says_so_and_is_told_once,
                a_failed_order_fails_its_operation_with_its_reason,
                an_agent_cannot_settle_what_was_never_ordered,
                an_agent_of_before_upgrades_fails_an_order_that_it_has_taken_for_another,
                a_pinned_instance_takes_no_other_version,
                only_a_running_rollout_gives_orders,
                a_new_rollout_of_a_tier_ends_the_one_before,
                an_instance_that_does_not_run_yet_is_no_candidate,
                a_halted_rollouts_orders_are_taken_back_and_may_be_given_again,
                an_agent_that_had_begun_when_its_order_was_taken_back_has_the_last_word,
                an_order_without_an_end_is_given_up_and_its_late_word_ends_no_other,
                a_pin_takes_back_the_order_for_another_version,
                whoever_is_switched_off_comes_back_without_the_order,
                another_change_leaves_the_number_of_the_last_order,
                nobody_is_ready_whose_agent_knows_no_orders_or_is_being_replaced,
                a_members_trouble_has_a_beginning_and_may_be_forgiven,
            }
            deletion {
                a_deletion_takes_routes_trust_sessions_and_links,
                a_deletion_supersedes_a_change,
                a_deletion_succeeds_when_the_server_is_gone,
                a_pending_instance_is_deleted_at_once,
                a_deletion_is_not_repeated,
                a_deleted_name_is_free_again,
                within_its_grace_an_instance_is_out_of_reach_and_keeps_its_server_and_its_name,
                an_undeleted_instance_starts_again_on_its_server,
                only_a_deleted_instance_is_undeleted,
                a_pending_instance_waits_again_when_it_comes_back,
                a_purge_sends_the_server_away_and_frees_the_name,
                an_undeletion_and_a_purge_at_once_have_one_winner,
                a_deleted_instance_whose_server_is_lost_is_purged,
            }
            halts {
                a_suspension_shuts_every_door_and_keeps_what_is_behind,
                switching_off_has_succeeded_when_the_agent_has_observed_it,
                an_unsuspended_instance_runs_again_as_it_did,
                what_its_customer_had_stopped_is_stopped_after_a_suspension,
                what_failed_on_its_server_is_shut_like_any_other,
                what_failed_without_a_server_is_not_switched,
                what_cannot_be_switched_is_left_as_it_is,
                a_deletion_does_not_end_a_suspension,
                whoever_was_let_in_is_cut_off_when_access_changes,
            }
            events {
                sequence_numbers_have_no_gaps_under_concurrency,
                events_are_read_onwards_and_by_instance,
                old_events_are_forgotten_from_the_oldest_on,
                an_event_is_found_by_its_id,
                a_servers_life_is_told,
                an_instances_life_is_told,
            }
            leases {
                a_lease_is_anothers_only_after_its_release,
                a_lease_is_renewed_by_who_holds_it,
                an_expired_lease_is_anybodys,
                a_lease_is_released_by_who_holds_it_only,
                of_many_at_once_one_gets_the_lease,
                a_coordinator_is_there_as_long_as_its_heart_beats,
            }
            access {
                an_api_token_reads_back_and_is_revoked_once,
                a_login_link_opens_one_session,
                of_two_redemptions_at_once_one_opens,
                a_login_link_is_of_its_instance_and_its_time,
                a_session_ends,
                one_session_is_ended_or_all_of_its_instance,
                a_deleted_instance_gets_no_login_link,
                an_idempotency_key_goes_from_fresh_to_replay,
                an_idempotency_key_with_another_request_is_a_mismatch,
                an_abandoned_key_is_fresh,
                a_key_held_by_the_dead_is_fresh,
                of_two_requests_with_one_key_one_is_fresh,
                what_is_over_is_forgotten,
            }
        }
    };
}

/// The tests themselves. Used by [`conformance!`] only.
#[macro_export]
macro_rules! conformance_cases {
    ($fixture:ident; $($module:ident { $($case:ident,)+ })+) => {$(
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() -> $crate::store::conformance::Outcome {
                    let Some(fresh) = super::$fixture().await? else {
                        return Ok(());
                    };
                    let store = std::sync::Arc::clone(&fresh.store);
                    $crate::store::conformance::$module::$case(store).await
                }
            )+
        }
    )+};
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_in_the_macros_list() {
        let list = include_str!("conformance.rs");
        let sources = [
            include_str!("conformance/access.rs"),
            include_str!("conformance/churn.rs"),
            include_str!("conformance/claims.rs"),
            include_str!("conformance/deletion.rs"),
            include_str!("conformance/documents.rs"),
            include_str!("conformance/domains.rs"),
            include_str!("conformance/enrolment.rs"),
            include_str!("conformance/events.rs"),
            include_str!("conformance/halts.rs"),
            include_str!("conformance/instances.rs"),
            include_str!("conformance/keys.rs"),
            include_str!("conformance/leases.rs"),
            include_str!("conformance/pools.rs"),
            include_str!("conformance/providers.rs"),
            include_str!("conformance/reports.rs"),
            include_str!("conformance/rollouts.rs"),
            include_str!("conformance/sagas.rs"),
            include_str!("conformance/servers.rs"),
            include_str!("conformance/stats.rs"),
            include_str!("conformance/usage.rs"),
            include_str!("conformance/verifications.rs"),
        ];
        let cases = sources
            .iter()
            .flat_map(|source| source.split("pub async fn ").skip(1))
            .filter_map(|rest| rest.split('<').next());
        let missing: Vec<_> = cases
            .filter(|case| !list.contains(&format!("                {case},\n")))
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
