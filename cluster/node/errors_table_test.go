package node_test

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	nobody  = "nobody-here"
	noAlert = "00000000000000fe"
)

// wrong is a field that is missing or cannot be what it is.
func wrong(field, says string, req proto.Message) failure {
	return failure{what: field + " (" + says + ")", req: req, code: codes.InvalidArgument, field: field, says: says}
}

// unknown is a request about what is not there.
func unknown(reason string, req proto.Message) failure {
	return failure{what: "unknown", req: req, code: codes.NotFound, reason: reason}
}

// conflict is a request that the state of things forbids.
func conflict(reason, says string, req proto.Message) failure {
	return failure{what: "conflict " + reason, req: req, code: codes.FailedPrecondition, reason: reason, says: says}
}

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

// Values that no timestamp and no duration has.
var (
	noTime     = &timestamppb.Timestamp{Nanos: -1}
	noDuration = &durationpb.Duration{Seconds: 1, Nanos: -1}
	long       = strings.Repeat("x", 5000)
)

// devices are the failures of calls about one device.
func devices(with func(id string) proto.Message) []failure {
	return []failure{
		wrong("id", "is required", with("")), wrong("id", "want 1-128 bytes", with("a/b")), wrong("id", "want 1-128 bytes", with(long)),
		unknown("UNKNOWN_TWIN", with(nobody)),
	}
}

// alertIDs are those of calls about one alert.
func alertIDs(with func(id string) proto.Message) []failure {
	return []failure{
		wrong("id", "is required", with("")), wrong("id", "want 16 hex digits", with("ff")), unknown("UNKNOWN_ALERT", with(noAlert)),
	}
}

// pages are those of lists.
func pages(with func(size int32, token string) proto.Message) []failure {
	return []failure{wrong("page_size", "-1", with(-1, "")), wrong("page_token", "not a token", with(0, "x"))}
}

// filters are those of calls that take a filter over messages with a field "id".
func filters(with func(filter string) proto.Message) []failure {
	return []failure{
		wrong("filter", "1:8", with("true &&")), wrong("filter", "undeclared", with("nosuch == 1")),
		wrong("filter", "bool", with("id")), wrong("filter", "", with("id == '"+strings.Repeat("x", 20_000)+"'")),
	}
}

// rpcs is the table: every method, and how it fails.
func (s *scene) rpcs() map[string]rpc {
	all := s.twinReads()
	for _, part := range []map[string]rpc{s.twinWrites(), s.alertRPCs(), s.ruleRPCs(), s.fleetRPCs()} {
		maps.Copy(all, part)
	}
	return all
}

func (s *scene) twinReads() map[string]rpc {
	type get = doppelv1.GetTwinRequest
	type list = doppelv1.ListTwinsRequest
	type history = doppelv1.GetHistoryRequest
	type aggregate = doppelv1.AggregateTwinsRequest
	type watch = doppelv1.WatchTwinsRequest
	other, err := s.twins.ListTwins(s.ctx, &list{PageSize: 1, Filter: "true"})
	s.must(err)
	past := func(q *history) *history { q.Id, q.Metric = s.pump, "t"; return q }
	return map[string]rpc{
		doppelv1.TwinService_GetTwin_FullMethodName: {&get{Id: s.pump}, slices.Concat(
			devices(func(id string) proto.Message { return &get{Id: id} }),
			devices(func(id string) proto.Message { return &get{Id: id, AsOf: &doppelv1.GetTwinRequest_Version{Version: 1}} }),
			[]failure{
				wrong("read_mask", "nosuch", &get{Id: s.pump, ReadMask: mask("nosuch")}),
				wrong("read_mask", "has no fields", &get{Id: s.pump, ReadMask: mask("id.x")}),
				wrong("version", "is 0", &get{Id: s.pump, AsOf: &doppelv1.GetTwinRequest_Version{}}),
				wrong("version", "", &get{Id: s.pump, AsOf: &doppelv1.GetTwinRequest_Version{Version: 1 << 40}}),
				wrong("time", "", &get{Id: s.pump, AsOf: &doppelv1.GetTwinRequest_Time{Time: noTime}}),
				wrong("time", "1970", &get{Id: s.pump, AsOf: &doppelv1.GetTwinRequest_Time{Time: timestamppb.New(time.Unix(-1, 0))}}),
				wrong("time", "", &get{Id: s.pump, AsOf: &doppelv1.GetTwinRequest_Time{Time: timestamppb.New(time.Now().Add(time.Hour))}}),
			},
		)},
		doppelv1.TwinService_BatchGetTwins_FullMethodName: {&doppelv1.BatchGetTwinsRequest{Ids: []string{s.pump}}, []failure{
			wrong("ids", "is required", &doppelv1.BatchGetTwinsRequest{Ids: []string{s.pump, ""}}),
			wrong("ids", "want 1-128 bytes", &doppelv1.BatchGetTwinsRequest{Ids: []string{"a b"}}),
			wrong("ids", "1000", &doppelv1.BatchGetTwinsRequest{Ids: slices.Repeat([]string{"a"}, 1001)}),
			wrong("read_mask", "nosuch", &doppelv1.BatchGetTwinsRequest{Ids: []string{s.pump}, ReadMask: mask("nosuch")}),
		}},
		doppelv1.TwinService_ListTwins_FullMethodName: {&list{}, slices.Concat(
			filters(func(f string) proto.Message { return &list{Filter: f} }),
			pages(func(size int32, token string) proto.Message { return &list{PageSize: size, PageToken: token} }),
			[]failure{
				wrong("order_by", "nosuch", &list{OrderBy: "nosuch"}), wrong("order_by", "sideways", &list{OrderBy: "id sideways"}),
				wrong("page_token", "another filter", &list{Filter: "online", PageToken: other.GetNextPageToken()}),
				wrong("read_mask", "nosuch", &list{ReadMask: mask("nosuch")}),
			},
		)},
		doppelv1.TwinService_AggregateTwins_FullMethodName: {&aggregate{}, slices.Concat(
			filters(func(f string) proto.Message { return &aggregate{Filter: f} }),
			[]failure{
				wrong("group_by", "nosuch", &aggregate{GroupBy: "nosuch"}), wrong("page_size", "-1", &aggregate{PageSize: -1}),
				wrong("quantiles", "2", &aggregate{Metrics: []string{"t"}, Quantiles: []float64{2}}),
				wrong("metrics", "", &aggregate{Metrics: []string{"no good"}}),
			},
		)},
		doppelv1.TwinService_WatchTwins_FullMethodName: {&watch{}, slices.Concat(
			filters(func(f string) proto.Message { return &watch{Filter: f} }),
			[]failure{
				wrong("ids", "want 1-128 bytes", &watch{Ids: []string{"a/b"}}), wrong("ids", "is required", &watch{Ids: []string{""}}),
				wrong("read_mask", "nosuch", &watch{ReadMask: mask("nosuch")}), wrong("resume_token", "not a token", &watch{ResumeToken: "x"}),
				wrong("resume_token", "another kind", &watch{ResumeToken: other.GetNextPageToken()}),
				wrong("heartbeat", "", &watch{Heartbeat: noDuration}), wrong("heartbeat", "-1s", &watch{Heartbeat: durationpb.New(-time.Second)}),
			},
		)},
		doppelv1.TwinService_GetHistory_FullMethodName: {past(&history{}), slices.Concat(
			devices(func(id string) proto.Message { return &history{Id: id, Metric: "t"} }),
			pages(func(size int32, token string) proto.Message { return past(&history{PageSize: size, PageToken: token}) }),
			[]failure{
				wrong("metric", "is required", &history{Id: s.pump}), wrong("metric", "want [A-Za-z_]", &history{Id: s.pump, Metric: "no good"}),
				wrong("start", "", past(&history{Start: noTime})), wrong("end", "", past(&history{End: noTime})),
				wrong("start", "not before the end", past(&history{Start: timestamppb.New(time.Now().Add(time.Hour))})),
				wrong("interval", "", past(&history{Interval: noDuration})), wrong("interval", "1ms", past(&history{Interval: durationpb.New(1)})),
			},
		)},
		doppelv1.TwinService_ReplayTwin_FullMethodName: {
			&doppelv1.ReplayTwinRequest{Id: s.pump}, devices(func(id string) proto.Message { return &doppelv1.ReplayTwinRequest{Id: id} }),
		},
	}
}

func (s *scene) twinWrites() map[string]rpc {
	type invoke = doppelv1.InvokeCommandRequest
	update := func(t *doppelv1.Twin, paths ...string) *doppelv1.UpdateTwinRequest {
		t.Id = s.pump
		return &doppelv1.UpdateTwinRequest{Twin: t, UpdateMask: mask(paths...)}
	}
	send := func(q *invoke) *invoke { q.Id, q.Name = s.pump, "ping"; return q }
	return map[string]rpc{
		doppelv1.TwinService_UpdateTwin_FullMethodName: {update(desired(structpb.NewNumberValue(1))), s.updates()},
		doppelv1.TwinService_DeleteTwin_FullMethodName: {&doppelv1.DeleteTwinRequest{Id: s.pump}, append(
			devices(func(id string) proto.Message { return &doppelv1.DeleteTwinRequest{Id: id} }),
			stale(&doppelv1.DeleteTwinRequest{Id: s.pump, Etag: "of-another-day"}),
		)},
		doppelv1.TwinService_ResetTwin_FullMethodName: {
			&doppelv1.ResetTwinRequest{Id: s.pump}, devices(func(id string) proto.Message { return &doppelv1.ResetTwinRequest{Id: id} }),
		},
		doppelv1.TwinService_InvokeCommand_FullMethodName: {send(&invoke{}), slices.Concat(
			devices(func(id string) proto.Message { return &invoke{Id: id, Name: "ping"} }),
			[]failure{
				wrong("name", "is required", &invoke{Id: s.pump}), wrong("name", "want 1-64", &invoke{Id: s.pump, Name: "a/b"}),
				wrong("body", "not JSON", send(&invoke{Body: &structpb.Value{}})),
				wrong("body", "want at most", send(&invoke{Body: structpb.NewStringValue(strings.Repeat(long, 60))})),
				wrong("timeout", "want more than 0", send(&invoke{Timeout: durationpb.New(-1)})),
				wrong("timeout", "10m", send(&invoke{Timeout: durationpb.New(time.Hour)})), wrong("timeout", "", send(&invoke{Timeout: noDuration})),
				wrong("idempotency_key", "want at most 128", send(&invoke{IdempotencyKey: "two words"})),
				conflict("DEVICE_OFFLINE", "queue_if_offline", &invoke{Id: s.gone, Name: "ping"}),
				{
					what: "no reply", code: codes.DeadlineExceeded, reason: "NO_REPLY", says: "reply",
					req: send(&invoke{Timeout: durationpb.New(50 * time.Millisecond)}),
				},
				{
					what: "a key of another command", code: codes.InvalidArgument, field: "idempotency_key", reason: "IDEMPOTENCY_KEY_REUSED",
					req: &invoke{Id: s.busy, Name: "work", Body: structpb.NewStringValue("other"), IdempotencyKey: busyKey},
				},
			},
		)},
	}
}

// stale is a request with the etag of an older state.
func stale(req proto.Message) failure {
	return failure{what: "conflict", req: req, code: codes.Aborted, reason: "ETAG_MISMATCH", says: "read it again"}
}

// desired is a twin of which a rate is desired.
func desired(rate *structpb.Value) *doppelv1.Twin {
	return &doppelv1.Twin{Desired: &structpb.Struct{Fields: map[string]*structpb.Value{"rate": rate}}}
}

// updates are the failures of UpdateTwin.
func (s *scene) updates() []failure {
	type request = doppelv1.UpdateTwinRequest
	of := func(t *doppelv1.Twin, paths ...string) *request {
		t.Id = s.pump
		return &request{Twin: t, UpdateMask: mask(paths...)}
	}
	deep := structpb.NewBoolValue(true)
	for range 11 {
		deep = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"x": deep}})
	}
	one := structpb.NewNumberValue(1)
	return []failure{
		wrong("twin", "is required", &request{}),
		wrong("twin.id", "is required", &request{Twin: &doppelv1.Twin{}}),
		wrong("twin.id", "want 1-128 bytes", &request{Twin: &doppelv1.Twin{Id: "a/b"}}),
		unknown("UNKNOWN_TWIN", &request{Twin: &doppelv1.Twin{Id: nobody, Tags: map[string]string{"site": "brno"}}}),
		stale(&request{Twin: &doppelv1.Twin{Id: s.pump, Tags: map[string]string{"site": "brno"}}, Etag: "of-another-day"}),
		wrong("update_mask", "desired.MEMBER", of(desired(one), "reported")),
		wrong("update_mask", "behind the dot", of(desired(one), "desired.")),
		wrong("update_mask", "behind the dot", of(desired(one), "tags.")),
		wrong("update_mask", "100", of(desired(one), slices.Repeat([]string{"desired"}, 101)...)),
		wrong("twin.desired", "at most 10", of(desired(deep))),
		wrong("twin.desired", "NaN", of(desired(structpb.NewNumberValue(math.NaN())))),
		wrong("twin.desired", "no kind", of(desired(&structpb.Value{}))),
		wrong("twin.desired", "32768", of(desired(structpb.NewStringValue(strings.Repeat(long, 7))))),
		wrong("twin.tags", "a key has", of(&doppelv1.Twin{Tags: map[string]string{long: "x"}})),
		wrong("twin.tags", "a value at most", of(&doppelv1.Twin{Tags: map[string]string{"x": long}})),
	}
}

func (s *scene) alertRPCs() map[string]rpc {
	type list = doppelv1.ListAlertsRequest
	type watch = doppelv1.WatchAlertsRequest
	type silence = doppelv1.SilenceAlertsRequest
	type acknowledge = doppelv1.AcknowledgeAlertRequest
	hour := durationpb.New(time.Hour)
	return map[string]rpc{
		doppelv1.AlertService_GetAlert_FullMethodName: {
			&doppelv1.GetAlertRequest{Id: s.firing}, alertIDs(func(id string) proto.Message { return &doppelv1.GetAlertRequest{Id: id} }),
		},
		doppelv1.AlertService_ExplainAlert_FullMethodName: {
			&doppelv1.ExplainAlertRequest{Id: s.firing}, alertIDs(func(id string) proto.Message { return &doppelv1.ExplainAlertRequest{Id: id} }),
		},
		doppelv1.AlertService_AcknowledgeAlert_FullMethodName: {&acknowledge{Id: s.firing}, append(
			alertIDs(func(id string) proto.Message { return &acknowledge{Id: id} }),
			wrong("comment", "at most 1024", &acknowledge{Id: s.firing, Comment: long}),
			conflict("ALERT_RESOLVED", "", &acknowledge{Id: s.resolved}),
		)},
		doppelv1.AlertService_ListAlerts_FullMethodName: {&list{}, slices.Concat(
			filters(func(f string) proto.Message { return &list{Filter: f} }),
			pages(func(size int32, token string) proto.Message { return &list{PageSize: size, PageToken: token} }),
			[]failure{wrong("order_by", "nosuch", &list{OrderBy: "nosuch"})},
		)},
		doppelv1.AlertService_WatchAlerts_FullMethodName: {&watch{}, slices.Concat(
			filters(func(f string) proto.Message { return &watch{Filter: f} }),
			[]failure{
				wrong("devices", "want 1-128 bytes", &watch{Devices: []string{"a/b"}}), wrong("min_severity", "99", &watch{MinSeverity: 99}),
				wrong("resume_token", "not a token", &watch{ResumeToken: "x"}),
				wrong("heartbeat", "", &watch{Heartbeat: noDuration}), wrong("heartbeat", "-1s", &watch{Heartbeat: durationpb.New(-time.Second)}),
			},
		)},
		doppelv1.AlertService_SilenceAlerts_FullMethodName: {&silence{Filter: "true", Duration: hour}, slices.Concat(
			filters(func(f string) proto.Message { return &silence{Filter: f, Duration: hour} }),
			[]failure{
				wrong("filter", "is required", &silence{Duration: hour}), wrong("duration", "is required", &silence{Filter: "true"}),
				wrong("duration", "7200s", &silence{Filter: "true", Duration: noDuration}),
				wrong("duration", "more than 0", &silence{Filter: "true", Duration: durationpb.New(-1)}),
				wrong("comment", "at most 1024", &silence{Filter: "true", Duration: hour, Comment: long}),
			},
		)},
		doppelv1.AlertService_ListSilences_FullMethodName: {&doppelv1.ListSilencesRequest{}, pages(func(size int32, token string) proto.Message {
			return &doppelv1.ListSilencesRequest{PageSize: size, PageToken: token}
		})},
		doppelv1.AlertService_ExpireSilence_FullMethodName: {&doppelv1.ExpireSilenceRequest{Id: noAlert}, []failure{
			wrong("id", "is required", &doppelv1.ExpireSilenceRequest{}), wrong("id", "want 16 hex digits", &doppelv1.ExpireSilenceRequest{Id: "x"}),
			unknown("UNKNOWN_SILENCE", &doppelv1.ExpireSilenceRequest{Id: noAlert}),
		}},
	}
}

func (s *scene) ruleRPCs() map[string]rpc {
	type test = doppelv1.TestRuleRequest
	good := hot("good", "*", 80)
	all := map[string]rpc{
		doppelv1.RuleService_ListRules_FullMethodName: {&doppelv1.ListRulesRequest{}, pages(func(size int32, token string) proto.Message {
			return &doppelv1.ListRulesRequest{PageSize: size, PageToken: token}
		})},
		doppelv1.RuleService_GetRule_FullMethodName: {&doppelv1.GetRuleRequest{Id: "builtin.zscore"}, []failure{
			wrong("id", "is required", &doppelv1.GetRuleRequest{}), wrong("id", "want 1 to 64", &doppelv1.GetRuleRequest{Id: "A b"}),
			unknown("UNKNOWN_RULE", &doppelv1.GetRuleRequest{Id: nobody}),
		}},
		doppelv1.RuleService_DeleteRule_FullMethodName: {&doppelv1.DeleteRuleRequest{Id: "hot-" + s.pump}, []failure{
			wrong("id", "is required", &doppelv1.DeleteRuleRequest{}), wrong("id", "want 1 to 64", &doppelv1.DeleteRuleRequest{Id: "A b"}),
			unknown("UNKNOWN_RULE", &doppelv1.DeleteRuleRequest{Id: nobody}),
		}},
	}
	apply := []failure{wrong("rule", "is required", &doppelv1.ApplyRuleRequest{})}
	tests := []failure{
		wrong("rule", "is required", &test{}), wrong("start", "", &test{Rule: good, Start: noTime}), wrong("end", "", &test{Rule: good, End: noTime}),
		wrong("start", "before end", &test{Rule: good, Start: timestamppb.New(time.Now().Add(time.Hour))}),
		wrong("start", "31 days", &test{Rule: good, Start: timestamppb.New(time.Now().AddDate(-1, 0, 0))}),
		wrong("devices", "want 1-128 bytes", &test{Rule: good, Devices: []string{"a/b"}}),
	}
	for _, bad := range []struct {
		field, says string
		change      func(*doppelv1.Rule)
	}{
		{"id", "", func(r *doppelv1.Rule) { r.Id = "" }},
		{"id", "", func(r *doppelv1.Rule) { r.Id = "A b" }},
		{"kind", "", func(r *doppelv1.Rule) { r.Kind = "" }},
		{"kind", "nosuch", func(r *doppelv1.Rule) { r.Kind = "nosuch" }},
		{"mode", "loud", func(r *doppelv1.Rule) { r.Mode = "loud" }},
		{"expression", "", func(r *doppelv1.Rule) { r.Kind, r.Metric = "expression", "" }},
		{"expression", "1:4", func(r *doppelv1.Rule) { r.Kind, r.Metric, r.Expression = "expression", "", "1 +" }},
		{"levels[loud]", "info, warning or critical", func(r *doppelv1.Rule) { r.Levels = map[string]*doppelv1.Level{"loud": {}} }},
		{"levels[warning].op", "", func(r *doppelv1.Rule) { r.GetLevels()["warning"].Op = "~" }},
		{"levels[warning].exit", "", func(r *doppelv1.Rule) { r.GetLevels()["warning"].Exit = 99 }},
		{"match.device", "", func(r *doppelv1.Rule) { r.Match = &doppelv1.Match{Device: long} }},
		{"for_duration", "300s", func(r *doppelv1.Rule) { r.ForDuration = noDuration }},
	} {
		r := proto.CloneOf(good)
		bad.change(r)
		apply = append(apply, wrong("rule."+bad.field, bad.says, &doppelv1.ApplyRuleRequest{Rule: r}),
			wrong("rule."+bad.field, bad.says, &doppelv1.ApplyRuleRequest{Rule: r, ValidateOnly: true}))
		tests = append(tests, wrong("rule."+bad.field, bad.says, &test{Rule: r}))
	}
	all[doppelv1.RuleService_ApplyRule_FullMethodName] = rpc{&doppelv1.ApplyRuleRequest{Rule: good}, apply}
	all[doppelv1.RuleService_TestRule_FullMethodName] = rpc{&test{Rule: good}, tests}
	return all
}

func (s *scene) fleetRPCs() map[string]rpc {
	type list = doppelv1.ListDeadLettersRequest
	type redrive = doppelv1.RedriveDeadLettersRequest
	return map[string]rpc{
		// Nothing that can be asked of these two is wrong.
		doppelv1.FleetService_GetStatus_FullMethodName: {&doppelv1.GetStatusRequest{}, nil},
		doppelv1.FleetService_GetAudit_FullMethodName:  {&doppelv1.GetAuditRequest{}, nil},
		doppelv1.FleetService_ListDeadLetters_FullMethodName: {&list{}, slices.Concat(
			filters(func(f string) proto.Message { return &list{Filter: f} }),
			pages(func(size int32, token string) proto.Message { return &list{PageSize: size, PageToken: token} }),
			[]failure{wrong("read_mask", "nosuch", &list{ReadMask: mask("nosuch")})},
		)},
		doppelv1.FleetService_RedriveDeadLetters_FullMethodName: {&redrive{Ids: []string{s.garbage}, ReplacementPayload: []byte(`{"metrics":{"t":1}}`)}, slices.Concat(
			filters(func(f string) proto.Message { return &redrive{Filter: f} }),
			[]failure{
				wrong("ids", "is required", &redrive{}), wrong("ids", "want 0-OFFSET", &redrive{Ids: []string{"x"}}),
				wrong("ids", "1000", &redrive{Ids: slices.Repeat([]string{s.garbage}, 1001)}),
				wrong("filter", "either ids or a filter", &redrive{Ids: []string{s.garbage}, Filter: "true"}),
				wrong("replacement_payload", "only id", &redrive{Filter: "true", ReplacementPayload: []byte("x")}),
				unknown("UNKNOWN_DEAD_LETTER", &redrive{Ids: []string{"0-999999"}}),
				conflict("NOT_REDRIVABLE", "device", &redrive{Ids: []string{s.orphan}}),
			},
		)},
		doppelv1.FleetService_DrainNode_FullMethodName: {&doppelv1.DrainNodeRequest{Id: s.node}, []failure{
			wrong("id", "is required", &doppelv1.DrainNodeRequest{}), unknown("UNKNOWN_NODE", &doppelv1.DrainNodeRequest{Id: nobody}),
		}},
	}
}
