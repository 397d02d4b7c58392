/* The C interface of gmlake: stable names and plain types, for C and for every language that calls C.
 *
 * Conventions. They hold for every function here; a function says only what it adds to them.
 *
 *  1. Errors. A function that can fail returns a gmlake_status, GMLAKE_OK where it did what it says. A call that
 *     fails changes nothing and leaves what its out pointers point to as it was. gmlake_last_error() has the failure
 *     in words. No exception leaves a function, and none ends the process.
 *  2. Pointers. An argument that must point to something may be NULL, and a handle may be of the wrong kind,
 *     destroyed already or no handle at all: the call fails with GMLAKE_INVALID_VALUE. Other pointers are trusted: an
 *     out pointer points to room for its type, a text ends with a zero byte.
 *  3. Handles. gmlake_allocator*, gmlake_vir_block* and gmlake_recorder* are numbers in the shape of pointers: they
 *     point to nothing, and only functions of this header know them. A number is not used again.
 *  4. Ownership. What a ..._create function gave, the ..._destroy function of the same kind takes back, once.
 *     Destroying NULL is nothing, and no error. Texts that a function returns belong to the library.
 *  5. Threads. Any thread may call any function at any time, with two exceptions: a handle is destroyed when no other
 *     call that was given it is still going on, and one vir_block is used by one thread at a time.
 *  6. Streams. A stream is a CUstream or cudaStream_t of the device in question; NULL is its default stream, and
 *     CU_STREAM_PER_THREAD the calling thread's, which reports and histories show as a number from 2^52. Nothing here
 *     waits for the device but gmlake_trim and, before an out-of-memory error, a request for memory.
 *  7. Sizes are bytes, devices are numbered from 0. A size of 0 gives a NULL pointer and GMLAKE_OK where the function
 *     says so, else GMLAKE_INVALID_SIZE. Memory comes in multiples of 512 bytes, aligned to 512, with unspecified
 *     contents.
 *  8. Versions. A struct begins with its size and its version, which the caller sets to its sizeof and to the
 *     ..._VERSION of its header. A caller built with an older or a newer header gets the fields that both sides know,
 *     and zeros in those that only it knows. Names, numbers and the order of fields stay what they are as long as
 *     GMLAKE_ABI_VERSION does.
 *  9. Forks and exit. In the child of a fork, calls with a handle of the parent's fail with GMLAKE_FORKED; once the
 *     process exits, those that change something fail with GMLAKE_SHUT_DOWN. Neither touches the driver.
 */
#ifndef GMLAKE_GMLAKE_H
#define GMLAKE_GMLAKE_H

#include <stddef.h>
#include <stdint.h>

#define GMLAKE_VERSION_MAJOR 0
#define GMLAKE_VERSION_MINOR 1
#define GMLAKE_VERSION_PATCH 0
#define GMLAKE_ABI_VERSION 1

#if defined(__GNUC__)
#define GMLAKE_C_API __attribute__((visibility("default")))
#else
#define GMLAKE_C_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gmlake_allocator gmlake_allocator;
typedef struct gmlake_vir_block gmlake_vir_block;
typedef struct gmlake_recorder gmlake_recorder;

typedef enum gmlake_status {
  GMLAKE_OK = 0,
  GMLAKE_OUT_OF_MEMORY = 1,     /* physical memory, or the limit, is used up; or host memory for the books */
  GMLAKE_TOO_MANY_MAPPINGS = 2, /* the driver, or the bound on live mappings, takes no more */
  GMLAKE_ADDRESS_SPACE = 3,     /* no address range of that size is left */
  GMLAKE_INVALID_VALUE = 4,     /* an argument, or a driver call with a bad argument */
  GMLAKE_INVALID_SIZE = 5,      /* a size that overflows or exceeds what the device can hold */
  GMLAKE_INVALID_DEVICE = 6,    /* no such device */
  GMLAKE_INVALID_POINTER = 7,   /* double free, foreign or interior pointer */
  GMLAKE_INVALID_OPTION = 8,    /* a setting with an unknown key or a value outside its range */
  GMLAKE_NOT_SUPPORTED = 9,     /* the device, the driver or this version of the library cannot do this */
  GMLAKE_NO_DRIVER = 10,        /* no CUDA driver on this machine */
  GMLAKE_DEVICE_LOST = 11,      /* the device's context is broken for good */
  GMLAKE_SHUT_DOWN = 12,        /* used while the process exits */
  GMLAKE_FORKED = 13,           /* used in the child of a fork */
  GMLAKE_UNKNOWN = 14,          /* the driver said something that is none of the others */
  GMLAKE_CAPTURED = 15,         /* a stream is being captured into a graph: not before that ends */

  GMLAKE_FILE_ERROR = 100 /* a file could not be written; what was there before is as it was */
} gmlake_status;

/* The version of the library, which may differ from the header's: major * 1,000,000 + minor * 1,000 + patch. */
GMLAKE_C_API uint32_t gmlake_version(void);
/* The same as text, "0.1.0". */
GMLAKE_C_API const char* gmlake_version_string(void);
/* The library's GMLAKE_ABI_VERSION. */
GMLAKE_C_API uint32_t gmlake_abi_version(void);

/* A few words for a status, "out of memory"; "unknown status" for a number that is none. Never NULL. */
GMLAKE_C_API const char* gmlake_status_text(gmlake_status status);
/* The last failure of a call by this thread in words, with what was being done and the value in question. Empty where
 * no call has failed. Stays until the thread's next call that fails. Never NULL. */
GMLAKE_C_API const char* gmlake_last_error(void);

/* An allocator for the GPUs of this machine. `options` is "key:value,key:value", as in GMLAKE_CONF; NULL or empty for
 * the defaults. A setting that is refused is GMLAKE_INVALID_OPTION, and there is no allocator. Where there is no GPU it
 * is GMLAKE_NO_DRIVER, unless the options say "driver:host". With the option `record`, everything that is asked of it
 * goes to a file, which is there once it is destroyed or the process exits: GMLAKE_FILE_ERROR where none can be begun.
 */
GMLAKE_C_API gmlake_status gmlake_allocator_create(const char* options, gmlake_allocator** allocator);
/* The same with the option `driver` by itself: "cuda", or for tests of programs on machines without a GPU "host",
 * ordinary memory of this process, and "model", books alone, which hands out addresses with nothing behind them. Any
 * other name is GMLAKE_NOT_SUPPORTED. */
GMLAKE_C_API gmlake_status gmlake_allocator_create_on(const char* driver, const char* options,
                                                      gmlake_allocator** allocator);
/* The one allocator of the process, made at first use with the options of the environment variable GMLAKE_CONF. It is
 * never destroyed: gmlake_allocator_destroy refuses it. Always the same handle. */
GMLAKE_C_API gmlake_status gmlake_allocator_default(gmlake_allocator** allocator);
/* Gives everything back to the driver, live blocks included: call it when all work on the memory is complete. Where
 * vir_blocks of it are left, that happens when the last of them is destroyed; the handle is of no use from now on.
 * GMLAKE_FILE_ERROR where its recording (option `record`) could not be written: the allocator is gone all the same. */
GMLAKE_C_API gmlake_status gmlake_allocator_destroy(gmlake_allocator* allocator);

/* `bytes` of `device` for work on `stream`. 0 bytes are a NULL pointer and no error. */
GMLAKE_C_API gmlake_status gmlake_allocate(gmlake_allocator* allocator, size_t bytes, int device, void* stream,
                                           void** pointer);
/* Ends a block's use. Work enqueued by now on the stream that it was allocated on may still use it. NULL is nothing. */
GMLAKE_C_API gmlake_status gmlake_deallocate(gmlake_allocator* allocator, void* pointer);
/* The same where the block was last used on `stream`. */
GMLAKE_C_API gmlake_status gmlake_deallocate_on(gmlake_allocator* allocator, void* pointer, void* stream);
/* Work enqueued on `stream` by now uses the block: once freed, it is not handed out before that is complete. */
GMLAKE_C_API gmlake_status gmlake_record_stream(gmlake_allocator* allocator, void* pointer, void* stream);
/* Call it before a stream of `device` is destroyed, when no other thread names it any more. What it has cached goes to
 * the others once its work is complete; its live blocks stay, and are freed with gmlake_deallocate. Afterwards the
 * handle is that of a new stream. A stream that is unknown here is nothing to do. */
GMLAKE_C_API gmlake_status gmlake_forget_stream(gmlake_allocator* allocator, int device, void* stream);
/* Gives cached memory back to the driver until each device holds at most `keep_bytes`, or nothing more can go. */
GMLAKE_C_API gmlake_status gmlake_trim(gmlake_allocator* allocator, uint64_t keep_bytes);

/* The most physical memory that a device may hold, from now on: in bytes (0: no such limit), and as a share of its
 * memory, above 0 and at most 1. The lower one counts. What is held already stays until it is given back. */
GMLAKE_C_API gmlake_status gmlake_set_limit(gmlake_allocator* allocator, int device, uint64_t bytes);
GMLAKE_C_API gmlake_status gmlake_set_limit_fraction(gmlake_allocator* allocator, int device, double fraction);
/* The lower of the two, in bytes. */
GMLAKE_C_API gmlake_status gmlake_get_limit(gmlake_allocator* allocator, int device, uint64_t* bytes);

GMLAKE_C_API gmlake_status gmlake_device_count(gmlake_allocator* allocator, int* count);
/* The device of a live block, and its bytes as handed out. GMLAKE_INVALID_POINTER for any other pointer. */
GMLAKE_C_API gmlake_status gmlake_device_of(gmlake_allocator* allocator, const void* pointer, int* device);
GMLAKE_C_API gmlake_status gmlake_size_of(gmlake_allocator* allocator, const void* pointer, size_t* bytes);

/* A quantity that rises and falls. */
typedef struct gmlake_stat {
  uint64_t current;
  uint64_t peak;
  uint64_t allocated; /* all that was ever added */
  uint64_t freed;     /* and taken away */
} gmlake_stat;

#define GMLAKE_STATS_VERSION 1

/* The counters of one device that matter most, over requests of every size. gmlake_get_stat has all there are. */
typedef struct gmlake_stats {
  uint32_t size;    /* sizeof(gmlake_stats) of the caller */
  uint32_t version; /* GMLAKE_STATS_VERSION of the caller */

  gmlake_stat allocated_bytes; /* live blocks, in multiples of 512 B */
  gmlake_stat requested_bytes; /* the same, as their callers asked */
  gmlake_stat active_bytes;    /* live blocks, and freed ones that other streams still use */
  gmlake_stat reserved_bytes;  /* physical memory held, each byte once */
  gmlake_stat allocations;     /* live blocks, as a count */

  uint64_t alloc_retries;     /* times that cached memory went back to the driver to try a request again */
  uint64_t ooms;              /* requests that ended in an out-of-memory error */
  uint64_t spare_bytes;       /* physical memory held, at no address */
  uint64_t lost_bytes;        /* physical memory that the driver would not take back */
  uint64_t address_bytes;     /* addresses reserved */
  uint64_t quarantined_bytes; /* of them, what the driver would not unmap */
  uint64_t stale_bytes;       /* mappings kept for reuse */
  uint64_t mappings;          /* all mappings that the driver has */
  uint64_t events_pending;
  uint64_t driver_calls;
  uint64_t driver_ns; /* spent in them */

  uint64_t stitches;      /* requests that changed mappings */
  uint64_t moved_bytes;   /* PhyBlocks that changed their address for them */
  uint64_t revived_bytes; /* and those that went back to an old one, with no driver call */
  uint64_t grown_bytes;   /* and those created */
} gmlake_stats;

/* Fills `stats`, whose size and version the caller has set. Zeros for a device that was never used. A size too small
 * for the two of them, or beyond all reason, or a version of 0 is GMLAKE_INVALID_VALUE. */
GMLAKE_C_API gmlake_status gmlake_get_stats(gmlake_allocator* allocator, int device, gmlake_stats* stats);
/* One counter by its name, as docs/statistics.md lists them: "allocated_bytes.all.peak", "gmlake.stitches". A name that
 * is none is GMLAKE_INVALID_VALUE. */
GMLAKE_C_API gmlake_status gmlake_get_stat(gmlake_allocator* allocator, int device, const char* name, int64_t* value);
/* The name of the counter with that index, from 0; NULL past the last. */
GMLAKE_C_API const char* gmlake_stat_name(size_t index);
/* Peaks are the current values from now on. */
GMLAKE_C_API gmlake_status gmlake_reset_peaks(gmlake_allocator* allocator, int device);

/* A private pool, by a name of the caller's choice, as PyTorch's MempoolId_t. {0, 0} is no pool. */
typedef struct gmlake_pool_id {
  uint64_t first;
  uint64_t second;
} gmlake_pool_id;

/* Which allocations belong to a pool: asked, on the allocating thread, for the stream of each; 1: they do, 0: they do
 * not. It may be called at any time until gmlake_end_pool has returned, may call nothing of the allocator that asks,
 * and must not throw or jump out. */
typedef int (*gmlake_stream_filter)(void* stream, void* context);

/* Private pools: memory that stays at its addresses, for graphs that are replayed. From begin to end, what is allocated
 * on `device` for streams that the filter chooses, by any thread, belongs to the pool; where several filters choose a
 * stream, the one begun last has it. Nothing leaves a pool while it has references: one from each begin and retain,
 * less one for each release. With the last one gone, its live blocks become ordinary ones, and what is free in it goes
 * to the cache once the work that is enqueued by now is complete. A pool that has a filter cannot begin a second one,
 * one that has none cannot end it, and one without references cannot be released: GMLAKE_INVALID_VALUE. */
GMLAKE_C_API gmlake_status gmlake_begin_pool(gmlake_allocator* allocator, int device, gmlake_pool_id pool,
                                             gmlake_stream_filter filter, void* context);
GMLAKE_C_API gmlake_status gmlake_end_pool(gmlake_allocator* allocator, int device, gmlake_pool_id pool);
GMLAKE_C_API gmlake_status gmlake_retain_pool(gmlake_allocator* allocator, int device, gmlake_pool_id pool);
GMLAKE_C_API gmlake_status gmlake_release_pool(gmlake_allocator* allocator, int device, gmlake_pool_id pool);
/* How many references it has; 0 for a pool that is none. */
GMLAKE_C_API gmlake_status gmlake_pool_references(gmlake_allocator* allocator, int device, gmlake_pool_id pool,
                                                  uint64_t* references);

/* Does one small piece of the background worker's work on the calling thread, for programs that run without it (option
 * background_worker) and have idle time of their own. `more`: 0 where there is nothing more to do now. */
GMLAKE_C_API gmlake_status gmlake_background_step(gmlake_allocator* allocator, int* more);

#define GMLAKE_OOM_VERSION 1

/* What is known of a request that ended for want of memory, mappings or addresses. */
typedef struct gmlake_oom {
  uint32_t size;    /* sizeof(gmlake_oom), as above */
  uint32_t version; /* GMLAKE_OOM_VERSION, as above */

  gmlake_status status; /* as the request got it; GMLAKE_OK where no request has ended so */
  int device;
  void* stream;
  const char* text; /* the report in words, one idea a line, and what would help */

  uint64_t requested_bytes;
  uint64_t device_total_bytes;
  uint64_t device_free_bytes; /* as the driver says, over all processes; 0 where it would not say */
  uint64_t limit_bytes;
  uint64_t reserved_bytes;  /* physical memory held; of it */
  uint64_t allocated_bytes; /*   live blocks */
  uint64_t active_bytes;    /*   live blocks, and freed ones that other streams still use */
  uint64_t cached_bytes;    /*   free runs */
  uint64_t lost_bytes;      /*   what the driver would not take back */
  uint64_t largest_free_run_bytes;
} gmlake_oom;

/* The last request on a device that ended so, whichever thread's it was. The text stays until this thread's next call
 * of this function. Size and version are checked as in gmlake_get_stats. */
GMLAKE_C_API gmlake_status gmlake_get_last_oom(gmlake_allocator* allocator, int device, gmlake_oom* report);

/* Asked for memory when all else has failed: frees what can be spared and returns 1, and the request is tried again; or
 * returns 0. Called by the thread whose request it is, with no lock held: it may call anything here, and must not throw
 * or jump out. The report is the library's, of its version, and gone when the call returns. */
typedef int (*gmlake_release_callback)(const gmlake_oom* report, void* context);
/* Told of each request that ends for want of memory, mappings or addresses, in the same way. */
typedef void (*gmlake_oom_observer)(const gmlake_oom* report, void* context);

/* `context` is what the callback gets as its last argument. `id` is for removing it, and may not be NULL. */
GMLAKE_C_API gmlake_status gmlake_add_release_callback(gmlake_allocator* allocator, gmlake_release_callback callback,
                                                       void* context, uint64_t* id);
GMLAKE_C_API gmlake_status gmlake_add_oom_observer(gmlake_allocator* allocator, gmlake_oom_observer observer,
                                                   void* context, uint64_t* id);
/* Once it has returned, the callback is called no more and runs on no thread; from inside any callback it waits for
 * nothing. GMLAKE_INVALID_VALUE where there is no such callback. */
GMLAKE_C_API gmlake_status gmlake_remove_callback(gmlake_allocator* allocator, uint64_t id);

/* A VirBlock: one contiguous address range over whatever PhyBlocks were free. `bytes` > 0. */
GMLAKE_C_API gmlake_status gmlake_vir_block_create(gmlake_allocator* allocator, size_t bytes, int device, void* stream,
                                                   gmlake_vir_block** block);
/* Its address, its bytes as asked for, and its device. */
GMLAKE_C_API gmlake_status gmlake_vir_block_get(gmlake_vir_block* block, void** address);
GMLAKE_C_API gmlake_status gmlake_vir_block_size(gmlake_vir_block* block, size_t* bytes);
GMLAKE_C_API gmlake_status gmlake_vir_block_device(gmlake_vir_block* block, int* device);
/* The bytes of the PhyBlocks that lie under it, in order of address: the first `capacity` of them into `bytes`, which
 * may be NULL where capacity is 0, and how many there are into `count`. */
GMLAKE_C_API gmlake_status gmlake_vir_block_phy_blocks(gmlake_vir_block* block, uint64_t* bytes, size_t capacity,
                                                       size_t* count);
/* Gives the memory back, to be used again on the block's stream at once. */
GMLAKE_C_API gmlake_status gmlake_vir_block_destroy(gmlake_vir_block* block);

/* What is held at this moment, as a file: the first as torch.cuda.memory._dump_snapshot() writes it, for PyTorch's
 * tools and `gmlake replay`; the second as JSON of the schema docs/snapshot.schema.json. Written whole or not at all:
 * GMLAKE_FILE_ERROR says why not. No lock of the allocator is held while the file is written. */
GMLAKE_C_API gmlake_status gmlake_write_pickle_snapshot(gmlake_allocator* allocator, const char* path);
GMLAKE_C_API gmlake_status gmlake_write_json_snapshot(gmlake_allocator* allocator, const char* path);

typedef enum gmlake_action {
  GMLAKE_ALLOC = 0,          /* a block is handed out; bytes as requested */
  GMLAKE_FREE_REQUESTED = 1, /* its caller frees it */
  GMLAKE_FREE_COMPLETED = 2, /* and it may be handed out again */
  GMLAKE_RECORD_STREAM = 3,  /* work on `stream` uses it */
  GMLAKE_SEGMENT_MAP = 4,    /* physical memory came to lie at an address, for use */
  GMLAKE_SEGMENT_UNMAP = 5,  /* and left it */
  GMLAKE_TRIM = 6,           /* the caller gave cached memory back, down to `bytes` */
  GMLAKE_OOM = 7             /* a request for `bytes` was refused; `address` is how much memory was left */
} gmlake_action;

typedef struct gmlake_event {
  uint64_t address;
  uint64_t bytes;
  uint64_t stream;
  uint64_t time_us; /* since 1970 */
  uint64_t action;  /* a gmlake_action; later versions may have more of them */
} gmlake_event;

/* From now on keeps the last `events` events of each device, 40 bytes each; 0: none, as at the start. What was kept so
 * far is gone. */
GMLAKE_C_API gmlake_status gmlake_keep_history(gmlake_allocator* allocator, size_t events);
/* The events of a device from number `from` on, counted from when the device was first used: at most `capacity` of
 * them, and no more than 4,096 at a time, into `events`, and how many into `count`. `first` is the number of the first
 * of them: more than `from` where older ones are gone. The next call asks from first + count. */
GMLAKE_C_API gmlake_status gmlake_get_history(gmlake_allocator* allocator, int device, uint64_t from,
                                              gmlake_event* events, size_t capacity, uint64_t* first, size_t* count);

/* Records what the allocator is asked for from now on, as a .gmtrace that `gmlake replay` and its kin read. It takes
 * the allocator's history for itself; a thread of its own moves it to a file beside the target, and no allocation waits
 * for a disk. `events` are kept between two visits of that thread: 0 for the default, 65,536. The file is there once
 * the recorder is destroyed, or the process exits. An allocator has one recorder at a time; where it is destroyed
 * before its recorder, its memory goes back when that is destroyed. */
GMLAKE_C_API gmlake_status gmlake_recorder_create(gmlake_allocator* allocator, const char* path, size_t events,
                                                  gmlake_recorder** recorder);
/* How many events it has written, and how many came faster than it could write them. Either may be NULL. */
GMLAKE_C_API gmlake_status gmlake_recorder_progress(gmlake_recorder* recorder, uint64_t* events, uint64_t* dropped);
/* Ends the recording and writes the file. GMLAKE_FILE_ERROR where that fails: the handle is gone all the same. */
GMLAKE_C_API gmlake_status gmlake_recorder_destroy(gmlake_recorder* recorder);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* GMLAKE_GMLAKE_H */
