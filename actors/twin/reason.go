package twin

// Reason says why an input was refused; it is the reason header of its dead letter.
type Reason string

// Every reason of the public contract.
const (
	NotDecodable   Reason = "not_decodable"
	ContentType    Reason = "content_type"
	BadDeviceID    Reason = "device_id"
	MissingKey     Reason = "missing_key"
	TooLarge       Reason = "too_large"
	TooManySamples Reason = "too_many_samples"
	TooManyMetrics Reason = "too_many_metrics"
	MetricName     Reason = "metric_name"
	NotFinite      Reason = "not_finite"
	NoContent      Reason = "no_content"
	NumberRange    Reason = "number_range"
	TimeUnit       Reason = "time_unit"
	TimeTooOld     Reason = "time_too_old"
	TimeInFuture   Reason = "time_in_future"
	OutOfRange     Reason = "out_of_range"
	UnknownDevice  Reason = "unknown_device"
	StaleBoot      Reason = "stale_boot"
	Quarantined    Reason = "quarantined"
	QuestDBRefused Reason = "questdb_refused"
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{
		NotDecodable, ContentType, BadDeviceID, MissingKey, TooLarge, TooManySamples, TooManyMetrics, MetricName, NotFinite, NoContent,
		NumberRange, TimeUnit, TimeTooOld, TimeInFuture, OutOfRange, UnknownDevice, StaleBoot, Quarantined, QuestDBRefused,
	}
}
