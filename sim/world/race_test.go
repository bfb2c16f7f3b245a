//go:build race

package world

// raced: the race detector has little to find in one goroutine, and costs nine tenths of the schedules.
const raced = true
