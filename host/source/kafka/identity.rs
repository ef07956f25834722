//! Which topic stands behind a name: the id that the brokers gave it when it was made. One that is deleted and made anew has another. The
//! client's wrapper does not hand it out, so it is asked for through the library's own functions.

#![expect(unsafe_code, reason = "the wrapper has no DescribeTopics")]

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as ffi;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

/// Frees what it holds with the function that belongs to it.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by the library for us alone, and given back once, to the function that the library names for it.
            unsafe { (self.1)(self.0) };
        }
    }
}

/// The id of a topic, from a broker that knows it; `None`: the cluster is too old to give topics ids, or does not tell. An error is worth another try.
pub(super) fn topic_id<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    broker: i32,
    timeout: Duration,
) -> Result<Option<String>, String> {
    let Ok(name) = CString::new(topic) else { return Ok(None) };
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let client = client.client().native_ptr();
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    // SAFETY: the client lives as long as the reference we were given; names, options and the place for replies are made here, outlive the call, and are
    // freed on return. The event, and the result inside it, live until the end of this block; what is read from it is copied.
    unsafe {
        let topics = Owned(ffi::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1), ffi::rd_kafka_TopicCollection_destroy);
        let operation = ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Owned(ffi::rd_kafka_AdminOptions_new(client, operation), ffi::rd_kafka_AdminOptions_destroy);
        // What is refused here is as the library has it: its own time, and the cluster's controller.
        let _ = ffi::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, ptr::null_mut(), 0);
        let _ = ffi::rd_kafka_AdminOptions_set_broker(options.0, broker, ptr::null_mut(), 0);
        let replies = Owned(ffi::rd_kafka_queue_new(client), ffi::rd_kafka_queue_destroy);
        ffi::rd_kafka_DescribeTopics(client, topics.0, options.0, replies.0);
        let event = Owned(ffi::rd_kafka_queue_poll(replies.0, timeout_ms.saturating_add(1_000)), ffi::rd_kafka_event_destroy);
        if event.0.is_null() {
            return Err("no broker tells which topic it is".to_owned());
        }
        match ffi::rd_kafka_event_error(event.0) {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE | RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION => {
                return Ok(None);
            }
            code => return Err(format!("no broker tells which topic it is: {}", RDKafkaErrorCode::from(code))),
        }
        let result = ffi::rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let described = if result.is_null() { ptr::null_mut() } else { ffi::rd_kafka_DescribeTopics_result_topics(result, &mut count) };
        if described.is_null() || count == 0 {
            return Ok(None);
        }
        let id = ffi::rd_kafka_TopicDescription_topic_id(*described);
        if id.is_null() || (ffi::rd_kafka_Uuid_most_significant_bits(id), ffi::rd_kafka_Uuid_least_significant_bits(id)) == (0, 0) {
            return Ok(None);
        }
        let text = ffi::rd_kafka_Uuid_base64str(id);
        Ok((!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned()))
    }
}
