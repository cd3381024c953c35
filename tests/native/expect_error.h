// EXPECT_ERROR(expression, "argument"): the expression throws paro::Error and names that argument first.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "paro/error.h"

#define EXPECT_ERROR(expression, argument)          \
    CHECK_THROWS_MATCHES(expression, ::paro::Error, \
                         Catch::Matchers::MessageMatches(Catch::Matchers::StartsWith(argument)))
