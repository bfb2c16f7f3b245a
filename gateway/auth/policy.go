package auth

import (
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Rule is what a method asks of who calls it.
type Rule struct {
	Role Role
	// Open: anybody, also strangers.
	Open bool
	// Whole: it is about the whole fleet, so an identity that is bound to tags may not call it.
	Whole bool
	// Write: it changes something, and goes into the record of writes.
	Write bool
}

// methods is the one place that says who may call what. Reading is for readers; what a shift does (set,
// send, acknowledge, silence, send again) for operators; what changes how the fleet works, or cannot be
// undone, for admins. A method that is not here may not be called.
var methods = map[string]Rule{
	doppelv1.TwinService_GetTwin_FullMethodName:        {Role: Reader},
	doppelv1.TwinService_BatchGetTwins_FullMethodName:  {Role: Reader},
	doppelv1.TwinService_ListTwins_FullMethodName:      {Role: Reader},
	doppelv1.TwinService_AggregateTwins_FullMethodName: {Role: Reader},
	doppelv1.TwinService_WatchTwins_FullMethodName:     {Role: Reader},
	doppelv1.TwinService_GetHistory_FullMethodName:     {Role: Reader},
	doppelv1.TwinService_ReplayTwin_FullMethodName:     {Role: Reader},
	doppelv1.TwinService_UpdateTwin_FullMethodName:     {Role: Operator, Write: true}, // tags: RoleOfTags
	doppelv1.TwinService_InvokeCommand_FullMethodName:  {Role: Operator, Write: true},
	doppelv1.TwinService_DeleteTwin_FullMethodName:     {Role: Admin, Write: true},
	doppelv1.TwinService_ResetTwin_FullMethodName:      {Role: Admin, Write: true},

	doppelv1.AlertService_GetAlert_FullMethodName:         {Role: Reader},
	doppelv1.AlertService_ListAlerts_FullMethodName:       {Role: Reader},
	doppelv1.AlertService_WatchAlerts_FullMethodName:      {Role: Reader},
	doppelv1.AlertService_ExplainAlert_FullMethodName:     {Role: Reader},
	doppelv1.AlertService_AcknowledgeAlert_FullMethodName: {Role: Operator, Write: true},
	doppelv1.AlertService_SilenceAlerts_FullMethodName:    {Role: Operator, Write: true},
	doppelv1.AlertService_ListSilences_FullMethodName:     {Role: Reader, Whole: true},
	doppelv1.AlertService_ExpireSilence_FullMethodName:    {Role: Operator, Whole: true, Write: true},

	doppelv1.FleetService_GetStatus_FullMethodName:          {Role: Reader, Whole: true},
	doppelv1.FleetService_GetAudit_FullMethodName:           {Role: Reader, Whole: true},
	doppelv1.FleetService_ListDeadLetters_FullMethodName:    {Role: Reader, Whole: true},
	doppelv1.FleetService_RedriveDeadLetters_FullMethodName: {Role: Operator, Whole: true, Write: true},
	doppelv1.FleetService_DrainNode_FullMethodName:          {Role: Admin, Whole: true, Write: true},

	doppelv1.RuleService_ListRules_FullMethodName:  {Role: Reader},
	doppelv1.RuleService_GetRule_FullMethodName:    {Role: Reader},
	doppelv1.RuleService_TestRule_FullMethodName:   {Role: Reader, Whole: true},
	doppelv1.RuleService_ApplyRule_FullMethodName:  {Role: Admin, Whole: true, Write: true},
	doppelv1.RuleService_DeleteRule_FullMethodName: {Role: Admin, Whole: true, Write: true},

	// Whether the node serves is for load balancers, as /livez and /readyz are.
	healthv1.Health_Check_FullMethodName:                                         {Open: true},
	healthv1.Health_Watch_FullMethodName:                                         {Open: true},
	healthv1.Health_List_FullMethodName:                                          {Open: true},
	grpc_reflection_v1.ServerReflection_ServerReflectionInfo_FullMethodName:      {Role: Reader},
	grpc_reflection_v1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: {Role: Reader},

	Metrics:  {Role: Reader, Whole: true},
	Profiles: {Role: Admin, Whole: true},
}

// Things to ask for that are no RPC.
const (
	Metrics  = "metrics"
	Profiles = "profiles"
)

// RoleOfTags may change the tags of a twin: they decide which rules, silences and people it belongs to.
const RoleOfTags = Admin

// RuleOf is what a method asks for; false: there is no such method.
func RuleOf(method string) (Rule, bool) {
	r, ok := methods[method]
	return r, ok
}

// authorize says whether id may call method.
func authorize(id *Identity, method string, r Rule) error {
	switch {
	case r.Open:
		return nil
	case id.Role < r.Role:
		return refuse(codes.PermissionDenied, ReasonRole, "%s is %s, and %s asks for %s", id.Name, id.Role, method, r.Role)
	case r.Whole && id.Scoped():
		return refuse(codes.PermissionDenied, ReasonScope, "%s is bound to some twins, and %s is about the whole fleet", id.Name, method)
	}
	return nil
}

// NeedRole is the refusal of id where less than role is not enough; nil if it is.
func NeedRole(id *Identity, role Role, what string) error {
	if id.Role >= role {
		return nil
	}
	return refuse(codes.PermissionDenied, ReasonRole, "%s is %s, and %s asks for %s", id.Name, id.Role, what, role)
}

// OutOfScope is the refusal of a change that would take a twin into or out of what id is bound to.
func OutOfScope(id *Identity, what string) error {
	return refuse(codes.PermissionDenied, ReasonScope, "%s is bound to some twins, and %s", id.Name, what)
}
