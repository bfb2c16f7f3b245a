package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/selection"
	"github.com/doppel-iot/doppel/gateway/command"
)

// domain of the reasons in ErrorInfo.
const domain = "doppel.v1.QueryService"

// invalidWrite is the reason of a host.InvalidError, whose parts travel beside it.
const invalidWrite = "INVALID_WRITE"

// traveller is an error and how it travels: its reason, not its text, says which one it is.
type traveller struct {
	err    error
	code   codes.Code
	reason string
}

// errorTable is the errors of the host and of commands.
var errorTable = append(outcomes(), []traveller{
	{host.ErrUnknownDevice, codes.NotFound, "UNKNOWN_DEVICE"},
	{host.ErrUnknownAlert, codes.NotFound, "UNKNOWN_ALERT"},
	{host.ErrConflict, codes.Aborted, "CONFLICT"},
	{host.ErrAlertResolved, codes.FailedPrecondition, "ALERT_RESOLVED"},
	{host.ErrNotRetained, codes.OutOfRange, "NOT_RETAINED"},
	{filter.ErrCost, codes.ResourceExhausted, "FILTER_COST"},
	{selection.ErrGroups, codes.ResourceExhausted, "TOO_MANY_GROUPS"},
	{host.ErrFuture, codes.InvalidArgument, "FUTURE"},
	{host.ErrUnavailable, codes.Unavailable, "NOT_SERVED"},
	{host.ErrClosed, codes.Unavailable, "CLOSED"},
}...)

// outcomes of commands come first: some are an end of time as well.
func outcomes() []traveller {
	var all []traveller
	for _, o := range command.Outcomes() {
		all = append(all, traveller{o.Err, o.Code, o.Reason})
	}
	return all
}

// toStatus is err as it leaves the node.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if bad, ok := errors.AsType[*host.InvalidError](err); ok {
		st, failed := status.New(codes.InvalidArgument, err.Error()).WithDetails(&errdetails.ErrorInfo{
			Reason: invalidWrite, Domain: domain, Metadata: map[string]string{"field": bad.Field, "text": bad.Text},
		})
		if failed == nil {
			return st.Err()
		}
	}
	for _, row := range errorTable {
		if !errors.Is(err, row.err) {
			continue
		}
		st := status.New(row.code, err.Error())
		if d, failed := st.WithDetails(&errdetails.ErrorInfo{Reason: row.reason, Domain: domain}); failed == nil {
			st = d
		}
		return st.Err()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.Error(codes.Internal, err.Error())
}

// answered is an error that another node gave: its words, and which error of the host's it is.
type answered struct {
	text string
	is   error
}

func (e *answered) Error() string { return e.text }
func (e *answered) Unwrap() error { return e.is }

// fromStatus is the inverse of toStatus. ok is false if err is no answer of the other node's: it was
// not reached, or went away.
func fromStatus(err error) (_ error, ok bool) {
	st, isStatus := status.FromError(err)
	if !isStatus {
		return err, false
	}
	for _, d := range st.Details() {
		info, isInfo := d.(*errdetails.ErrorInfo)
		if !isInfo || info.GetDomain() != domain {
			continue
		}
		if info.GetReason() == invalidWrite {
			return &host.InvalidError{Field: info.GetMetadata()["field"], Text: info.GetMetadata()["text"]}, true
		}
		for _, row := range errorTable {
			if row.reason == info.GetReason() {
				return &answered{text: st.Message(), is: row.err}, true
			}
		}
	}
	switch st.Code() {
	case codes.Internal, codes.Unimplemented, codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated, codes.ResourceExhausted:
		return err, true
	default:
		return err, false
	}
}

// unavailable names partitions that nobody could be asked about. It is a host.ErrUnavailable.
func unavailable(ps []int32, why string) error {
	if why != "" {
		why = " (" + why + ")"
	}
	return fmt.Errorf("%s%s: %w", named(ps), why, host.ErrUnavailable)
}

// overdue is err; if that is the end of the caller's time, it names the partitions that had not answered.
func overdue(ps []int32, err error) error {
	if len(ps) == 0 || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%s did not answer in time: %w", named(ps), context.DeadlineExceeded)
}

// named are partitions as people read them.
func named(ps []int32) string {
	slices.Sort(ps)
	ps = slices.Compact(ps)
	names := make([]string, 0, len(ps))
	for _, p := range ps {
		names = append(names, strconv.Itoa(int(p)))
	}
	if len(names) == 1 {
		return "partition " + names[0]
	}
	return "partitions " + strings.Join(names, ", ")
}
