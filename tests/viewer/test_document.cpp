// Opening, selecting, editing, undo, saving, comparing: what panels do, without a panel.
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <thread>

#include "viewer_samples.h"

using Catch::Matchers::WithinAbs;
using paro::AxisOrder;
using paro::viewer::Document;
using paro::viewer::ErrorSource;
using paro::viewer::Scope;
using samples::Opened;

TEST_CASE("a profile opens with its capture and its run log") {
    Opened opened;
    const Document& document = opened.document;
    REQUIRE(document.has_profile());
    CHECK(document.layers() == 3);
    CHECK(document.head_count() == 6);
    CHECK(document.name_of(3) == "block.1.0 head 1");
    CHECK(document.rows_captured(1));
    CHECK_FALSE(document.rows_captured(0));
    CHECK(document.captured_count() == 1);
    REQUIRE(document.run() != nullptr);
    CHECK(document.run()->sparse_calls() == 80);
    CHECK(document.messages().empty());
    CHECK(document.overview().exact_count() == 6);
    CHECK(document.head_ready());
}

TEST_CASE("a capture opens its profile, alone or beside it") {
    samples::Folder folder;
    save_capture(samples::grid_capture(), folder / "wan.capture.safetensors");
    paro::viewer::Workers workers(1);
    Document document(workers);
    document.open(folder / "wan.capture.safetensors");
    REQUIRE(workers.drain(60.0));
    REQUIRE(document.has_profile());
    CHECK(document.path() == folder / "wan.json");
    document.set_density(Scope::head, 0.125);
    document.save();
    REQUIRE(workers.drain(60.0));
    CHECK(paro::load_profile(folder / "wan.json").layers[0].heads[0].density == 0.125);
    CHECK_FALSE(document.modified());
}

TEST_CASE("all six orders of the selected head agree with the core") {
    Opened opened;
    Document& document = opened.document;
    document.select(3);
    opened.settle();
    REQUIRE(document.head_ready());
    CHECK(document.maps().metrics_complete());
    const auto& group = document.base().layers[1].heads[1].groups[0];
    const paro::OffsetKernel kernel = paro::dequantise(document.base().bins, group.kernel);
    const paro::OrderScores scores = paro::score_orders(kernel, document.grid(), 64, 64, 0.3);
    for (std::size_t i = 0; i < 6; ++i) {
        CHECK_THAT(document.maps().order[i]->ranking.retained(0.3), WithinAbs(scores.retained[i], 1e-6));
    }
    CHECK(document.maps().best(0.3) == scores.by_retained_mass);
    std::array<paro::PaperMetric, 6> metrics;
    for (std::size_t i = 0; i < 6; ++i) metrics[i] = paper_metric(kernel, document.grid(), paro::kAxisOrders[i], 64);
    CHECK(document.maps().paper_choice() == paro::select_by_paper_metric(metrics));
}

TEST_CASE("the slider moves mask, retained mass and predicted time of its scope alone") {
    Opened opened;
    Document& document = opened.document;
    document.select(2);
    opened.settle();
    const auto before = document.figures(Scope::all);
    document.set_density(Scope::head, 0.6);
    const auto head = document.figures(Scope::head);
    CHECK(head.count == 15.0);  // of 5 x 5
    CHECK(head.exact == 1);
    CHECK_THAT(
        head.retained,
        WithinAbs(document.maps().order[static_cast<std::size_t>(document.heads()[2].order)]->ranking.retained(0.6),
                  1e-6));
    CHECK(document.density(3) == document.base().layers[1].heads[1].density);
    const auto after = document.figures(Scope::all);
    CHECK(after.count > before.count);
    REQUIRE(before.seconds.has_value());
    CHECK(after.seconds.value() > before.seconds.value());

    document.set_density(Scope::layer, 0.2);
    CHECK(document.density(2) == 0.2);
    CHECK(document.density(3) == 0.2);
    CHECK(document.density(0) != 0.2);
}

TEST_CASE("the default density leaves heads with one of their own, unless it is pinned") {
    Opened opened(false, false);
    Document& document = opened.document;
    const double own = document.density(1);
    document.set_density(Scope::all, 0.45);
    CHECK(document.default_density() == 0.45);
    CHECK(document.density(0) == 0.45);
    CHECK(document.density(1) == own);
    document.set_density(Scope::all, 0.5, 0, true);
    CHECK(document.heads()[0].density == 0.5);
    CHECK(document.heads()[1].density == 0.5);
    document.clear_density(Scope::all);
    CHECK_FALSE(document.heads()[1].density.has_value());
    CHECK(document.density(1) == 0.45);
}

TEST_CASE("undo and redo walk through edits, and a drag is one of them") {
    Opened opened(false, false);
    Document& document = opened.document;
    document.set_order(AxisOrder::WHF);
    CHECK(document.heads()[0].locked);
    for (int i = 1; i <= 50; ++i) document.set_density(Scope::head, i / 100.0, 7);
    CHECK(document.history().steps() == 2);
    CHECK(document.density(0) == 0.5);
    CHECK(document.undo());
    CHECK_FALSE(document.heads()[0].density.has_value());
    CHECK(document.redo());
    CHECK(document.density(0) == 0.5);
    CHECK(document.undo());
    CHECK(document.undo());
    CHECK_FALSE(document.undo());
    CHECK_FALSE(document.modified());
    CHECK(document.redo());
    CHECK(document.heads()[0].order == AxisOrder::WHF);
    document.set_locked(Scope::head, false);
    CHECK_FALSE(document.redo());  // a new edit ends what could be redone
    document.reset(Scope::all);
    CHECK_FALSE(document.modified());
    CHECK(document.undo());
    CHECK(document.edited_count() == 1);
}

TEST_CASE("an edit that changes nothing is no step") {
    Opened opened(false, false);
    Document& document = opened.document;
    document.reset(Scope::all);
    document.set_locked(Scope::head, false);
    CHECK(document.history().steps() == 0);
}

TEST_CASE("saving writes the edits, and the mass that a new order keeps") {
    Opened opened;
    Document& document = opened.document;
    const paro::Profile before = paro::load_profile(opened.profile);
    document.set_order(AxisOrder::HWF);
    document.set_density(Scope::head, 0.2);
    document.save();
    opened.settle();
    CHECK(opened.told("Saved"));
    CHECK_FALSE(document.modified());
    const paro::Profile after = paro::load_profile(opened.profile);
    const auto& head = after.layers[0].heads[0];
    CHECK(head.order == AxisOrder::HWF);
    CHECK(head.density == 0.2);
    CHECK(head.locked);
    CHECK(head.groups[0].kernel == before.layers[0].heads[0].groups[0].kernel);
    const auto map =
        paro::importance(paro::dequantise(after.bins, head.groups[1].kernel), {4, 8, 10}, AxisOrder::HWF, 64, 64);
    CHECK_THAT(head.groups[1].mass[2], WithinAbs(paro::retained_mass(map, paro::make_mask(map, 0.3)), 1e-9));
    CHECK(after.layers[2] == before.layers[2]);
    // Undo beyond a save is an edit again.
    CHECK(document.undo());
    CHECK(document.modified());
}

TEST_CASE("two profiles are compared head by head") {
    Opened opened;
    Document& document = opened.document;
    paro::Profile other = document.base();
    other.layers[2].heads[1].order = paro::AxisOrder::FHW;
    other.calibration.prompts = 5;
    other.layers[1].id = "block.9.0";
    save_profile(other, opened.folder / "other.json");
    document.open_comparison(opened.folder / "other.json");
    opened.settle();
    REQUIRE(document.comparison() != nullptr);
    CHECK(document.comparison()->same_model);
    const paro::ProfileDiff& diff = document.comparison()->diff;
    REQUIRE(diff.fields.size() == 1);
    CHECK(diff.fields[0].name == "calibration.prompts");
    CHECK(diff.only_a == std::vector<std::string>{"block.1.0"});
    CHECK(diff.only_b == std::vector<std::string>{"block.9.0"});
    CHECK(diff.heads.size() == 4 * other.timestep_groups.size());
    CHECK(diff.changed() == other.timestep_groups.size());
    // The figures are those of `profile diff`.
    const paro::ProfileDiff told = diff_profiles(document.base(), other, 64, 1);
    CHECK(diff.mean().a_by_b == told.mean().a_by_b);
    CHECK(diff.mean().b_by_a == told.mean().b_by_a);
    document.open_comparison(opened.folder / "missing.json");
    opened.settle();
    CHECK(opened.told("missing.json"));
}

TEST_CASE("figures without a capture's rows never replace those with them") {
    const auto capture = std::make_shared<paro::Capture>(samples::grid_capture());
    const auto profile = std::make_shared<paro::Profile>(capture->profile);
    const std::vector<paro::viewer::HeadState> heads(6);
    // On a busy machine a worker is interrupted in the middle, and an older answer comes after a newer one.
    std::atomic<bool> over = false;
    std::vector<std::thread> busy;
    for (unsigned i = 0; i <= std::thread::hardware_concurrency(); ++i) {
        busy.emplace_back([&over] {
            while (!over) {
            }
        });
    }
    int without_rows = 0, not_all = 0;
    for (int round = 0; round < 200; ++round) {
        paro::viewer::Workers workers(4);
        paro::viewer::Overview overview;
        overview.start(workers, profile, nullptr, heads, 0, {4, 8, 10}, 64);
        overview.attach(workers, capture, {1});
        const bool all = workers.drain(60.0) && overview.exact_count() == 6;
        not_all += !all;
        without_rows += overview.heads()[1].measured_lost.empty();
    }
    over = true;
    for (std::thread& thread : busy) thread.join();
    CHECK(not_all == 0);
    CHECK(without_rows == 0);
}

TEST_CASE("the error of a head comes from the best source there is") {
    Opened opened;
    Document& document = opened.document;
    CHECK(document.error(0).source == ErrorSource::meter);
    CHECK(document.error(0).lost == 0.25);
    CHECK(document.error(1).lost == 0.5);
    CHECK(document.error(4).source == ErrorSource::estimate);
    CHECK(document.kept_dense(2));
    CHECK_FALSE(document.kept_dense(0));
    Opened without(true, false);
    CHECK(without.document.error(1).source == ErrorSource::rows);
    const auto& rows = *without.document.overview().heads()[1].measured_lost.begin();
    CHECK(rows == 1.0f);
    CHECK(without.document.error(1).lost < 1.0);
}

TEST_CASE("group, grid, tile and text change what is computed") {
    Opened opened(false, false);
    Document& document = opened.document;
    const float first = document.overview().heads()[0].retained[60];
    document.set_group(1);
    opened.settle();
    CHECK(document.overview().heads()[0].retained[60] != first);
    document.set_tile(128);
    opened.settle();
    CHECK(document.maps().order[0]->map.rows == 3);
    CHECK(document.figures(Scope::head).blocks == 9.0);
    document.set_tile(77);
    CHECK(document.tile() == 128);
    const double without = document.figures(Scope::head).density_total;
    document.set_text(100, 0);
    CHECK(document.figures(Scope::head).density_total > without);
    document.set_group(5);
    CHECK(document.group() == 1);
    document.select(999);
    CHECK(document.selected() == 0);
}
