//! Apple's Business and School APIs as a server with a seeded fleet, a life, faults and a journal.
