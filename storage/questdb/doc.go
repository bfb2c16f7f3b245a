// Package questdb writes samples and alert transitions to QuestDB as rows, by ILP over HTTP.
//
// Rows come two ways. Live ones are offered by the partitions once their records are released. What
// was offered in vain (the queue was full, QuestDB away, the node down) is read back from the
// changelog, by the same rules as any reader's, and gives the same rows. For each partition a cursor
// says up to where QuestDB has the rows; it moves after a flush, so a crash repeats some, which the
// tables' deduplication keys absorb.
//
// Once QuestDB has answered, its own kill -9 loses no row; a power cut of its machine may, unless it is
// told to sync each commit (cairo.commit.mode=sync). Removing the cursor file writes all rows of the
// log again.
//
// It does not answer queries, and it keeps nothing in memory for a QuestDB that is slow or away.
//
// Offer, Lag, Stats and Err may be called from anywhere and never block; everything else belongs to
// the goroutine of Run.
package questdb
