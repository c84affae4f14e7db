"""The Lua scripts, and the state machine that they implement. This docstring lists every state, transition and field.

A job is one submission. Its record is the hash `keys.job(job_id)`. A run is a job whose image was queued. Jobs that
submit the same image before the run has ended are its followers: their records change together with the run's.

States
    PENDING      waits: in RQ's queue, or for the run that it follows
    PROCESSING   a worker has the run
    COMPLETED    has a result; ended
    FAILED       has an error; ended
    CANCELLED    its owner cancelled it; ended. Its run continues as long as it has followers.

Transitions, and the script that makes each one. Only scripts write records.
    none -> PENDING                    enqueue     the image was queued, or the job follows a run that is PENDING
    none -> PROCESSING                 enqueue     the job follows a run that is PROCESSING
    none -> COMPLETED                  add_ended   a cached result answered it
    none -> FAILED                     settle_batch  one image of a batch was refused, or not queued
    PENDING -> PROCESSING              step        a worker started the run
    PROCESSING -> PENDING              step        the worker gave it back, died or failed, and attempts are left
                                       sweep       RQ lost it, and it was queued again
    PENDING, PROCESSING -> COMPLETED   step        the worker has the result
    PENDING, PROCESSING -> FAILED      step        it cannot be analyzed, or no attempt is left
                                       sweep       it waited too long, or RQ lost it for good
    PENDING, PROCESSING -> CANCELLED   cancel      it waited, it was a follower, or RQ had lost it
                                       step        its owner had cancelled it before this step of its run
                                       sweep       its owner had cancelled it before its run failed
    ended -> none                      cancel      its owner deleted it; otherwise its record expires

An ended record never changes again: `lib/advance.lua` ensures this for every script. It also publishes each change of
the status, writes the history and schedules the webhook.

Fields of a record. The first seventeen are those of `JobRecord`. Where `add_ended` writes one, so does `settle_batch`.
    status              each transition above
    image_hash          enqueue, add_ended   SHA-256 of the image
    owner               enqueue, add_ended   the API key's owner; absent without one
    model               enqueue, add_ended   absent if it is the default of the API that accepted the job
    top_k               enqueue, add_ended   as the request asked
    min_confidence      enqueue, add_ended   as the request asked
    webhook_url         enqueue, add_ended   as the request asked
    question            enqueue, add_ended   the labels that a zero-shot model chooses from, and its template
    embedding           enqueue, add_ended   true if the result is to hold the image's embedding
    classifier          enqueue, add_ended   the classifier, and its version, that answers the job
    training            enqueue              the classifier that the job trains; its plan lies in the place of an image
    claim               enqueue, add_ended   the key of the claim of its Idempotency-Key, which expires with the record
    cached              enqueue, add_ended   whether a cached result answered it
                        step                 true if the image's embedding was in the cache: nothing was decoded
    result              add_ended, step      with COMPLETED, but for a training
    trained             step                 with COMPLETED, of a training: the classifier
    processing_time_ms  add_ended, step      with COMPLETED
    error               settle_batch, step, sweep  with FAILED
    history             advance              all statuses so far; absent while the status has never changed
    leads               enqueue              of a run: the key `leader` of its image
    follows             enqueue              of a follower: the ID of its run
    counted             enqueue              of a run: the key `image_bytes` that counts its image; of a follower: the
                                             set `following`, from which it is removed when it ends
    waits_until_s       enqueue              of a run: when `sweep` fails it, unless a live worker has it
    missed_s            sweep                of a run: when RQ first seemed to have lost it; removed if it is found
    cancelled           cancel               the owner cancelled it while a worker had it: it will end as CANCELLED
    ended_by            step                 the execution that wrote its end
The copy that a webhook is sent from, `keys.delivery(job_id)`, has two more fields.
    ended_s             schedule             when the job ended
    attempts            claim_deliveries     how often the webhook was tried

Scripts that change no record: find_result, find_position, list_jobs and read_queues only read. pop pops jobs for a
worker, and requeue_popped requeues those that were not started. join and run_commands write what a worker or a
deliverer says of itself. claim_deliveries and retry_delivery distribute webhooks, and run_commands deletes those that
were delivered or given up. rate_limit counts requests, as enqueue and find_position do in the same step. claim_key and
release_key serve idempotency keys.

Each script is a file `NAME.lua`. Its header lists its KEYS and ARGV, what it writes and what it answers. The function
of the same name in `runs`, `jobs`, `queues`, `deliveries` or `limits` builds a call of it. `lib/` holds functions that
scripts share.
"""
