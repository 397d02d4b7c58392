// All of gmlake's public C++ interface.
//
//   #include <gmlake/gmlake.hpp>
//   using namespace gmlake::literals;
//   auto block = gmlake::create_vir_block(1024_MiB);
//   void* p = block->get_block();
#pragma once

#include "gmlake/allocator.hpp"
#include "gmlake/bytes.hpp"
#include "gmlake/history.hpp"
#include "gmlake/mappings.hpp"
#include "gmlake/oom.hpp"
#include "gmlake/options.hpp"
#include "gmlake/result.hpp"
#include "gmlake/snapshot.hpp"
#include "gmlake/stats.hpp"
#include "gmlake/streams.hpp"
#include "gmlake/vir_block.hpp"
