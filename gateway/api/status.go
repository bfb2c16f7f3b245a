package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/history"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/selection"
	"github.com/doppel-iot/doppel/gateway/auth"
)

// retryAfter is what clients are told to wait while a partition moves.
const retryAfter = 500 * time.Millisecond

// errorTable is the one place where errors become gRPC codes. The first match wins; what matches
// nothing is a fault of ours: Internal, logged, its text kept from the caller.
var errorTable = []struct {
	err   error
	code  codes.Code
	retry time.Duration // above 0: RetryInfo goes with it
	// ErrorInfo goes with it, for programs; empty: the code says all.
	reason string
}{
	{err: host.ErrUnknownDevice, code: codes.NotFound, reason: "UNKNOWN_TWIN"},
	{err: host.ErrUnknownAlert, code: codes.NotFound, reason: "UNKNOWN_ALERT"},
	{err: host.ErrConflict, code: codes.Aborted, reason: "ETAG_MISMATCH"},
	{err: host.ErrAlertResolved, code: codes.FailedPrecondition, reason: "ALERT_RESOLVED"},
	{err: host.ErrNotRetained, code: codes.OutOfRange, reason: "NOT_RETAINED"},
	{err: history.ErrTooMuch, code: codes.ResourceExhausted, reason: "TOO_MUCH_HISTORY"},
	{err: history.ErrBehind, code: codes.Unavailable, retry: retryAfter, reason: "HISTORY_BEHIND"},
	{err: host.ErrUnavailable, code: codes.Unavailable, retry: retryAfter, reason: "PARTITION_MOVES"},
	{err: host.ErrClosed, code: codes.Unavailable, retry: retryAfter, reason: "NODE_STOPS"},
	{err: errHubClosed, code: codes.Unavailable, retry: retryAfter, reason: "NODE_STOPS"},
	{err: errNoTail, code: codes.Unavailable, retry: retryAfter, reason: "LOG_UNAVAILABLE"},
	{err: filter.ErrCost, code: codes.ResourceExhausted, reason: "FILTER_COST"},
	{err: selection.ErrGroups, code: codes.ResourceExhausted, reason: "TOO_MANY_GROUPS"},
	{err: context.Canceled, code: codes.Canceled},
	{err: context.DeadlineExceeded, code: codes.DeadlineExceeded},
}

// toStatus maps err to a gRPC status; nil stays nil and a status stays as it is.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if bad, ok := errors.AsType[*violation](err); ok {
		return withDetails(codes.InvalidArgument, bad.Error(), &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: bad.field, Description: bad.text}},
		})
	}
	if st := commandStatus(err); st != nil {
		return st
	}
	if bad, ok := errors.AsType[*host.InvalidError](err); ok {
		return toStatus(invalid("twin."+bad.Field, "%s", bad.Text))
	}
	for _, row := range errorTable {
		if !errors.Is(err, row.err) {
			continue
		}
		var details []protoadapt.MessageV1
		if row.reason != "" {
			details = append(details, &errdetails.ErrorInfo{Reason: row.reason, Domain: auth.Domain})
		}
		if row.retry > 0 {
			details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(row.retry)})
		}
		return withDetails(row.code, err.Error(), details...)
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.Error(codes.Internal, "internal error")
}

// violation says which field of a request is wrong, and why.
type violation struct {
	field, text string
}

func (v *violation) Error() string { return v.field + ": " + v.text }

// invalid makes the violation of one field; field is its name in the proto file.
func invalid(field, format string, args ...any) error {
	return &violation{field: field, text: fmt.Sprintf(format, args...)}
}

// because is a status with a reason for programs.
func because(code codes.Code, reason, format string, args ...any) error {
	return withDetails(code, fmt.Sprintf(format, args...), &errdetails.ErrorInfo{Reason: reason, Domain: auth.Domain})
}

func withDetails(code codes.Code, text string, details ...protoadapt.MessageV1) error {
	st := status.New(code, text)
	// WithDetails fails only for code OK and for messages that can't be encoded.
	if d, err := st.WithDetails(details...); err == nil {
		st = d
	}
	return st.Err()
}

// compileFilter compiles the field "filter" of a request.
func compileFilter(env *filter.Env, expr string) (filter.Filter, error) {
	f, err := env.Compile(expr)
	if bad, ok := errors.AsType[*filter.Error](err); ok {
		return f, invalid("filter", "%s", bad.Text)
	}
	return f, err
}

// parseOrder parses the field "order_by" of a request.
func parseOrder(orderBy string, msg proto.Message) (selection.Order, error) {
	o, err := selection.ParseOrder(orderBy, msg)
	return o, badSelection(err)
}

// badSelection is err as that of a field of a request, if it is one.
func badSelection(err error) error {
	if bad, ok := errors.AsType[*selection.Error](err); ok {
		return invalid(bad.Field, "%s", bad.Text)
	}
	return err
}
