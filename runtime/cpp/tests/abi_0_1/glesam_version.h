/* The version of the headers, for programs that check it when they compile. glesam_version() and
 * glesam::version() return the version of the library that runs. */
#ifndef GLESAM_VERSION_H
#define GLESAM_VERSION_H

#define GLESAM_VERSION_MAJOR 0
#define GLESAM_VERSION_MINOR 1
#define GLESAM_VERSION_PATCH 0

/* The three numbers as a string, such as "0.1.0". */
#define GLESAM_VERSION_TEXT_(major, minor, patch) #major "." #minor "." #patch
#define GLESAM_VERSION_TEXT(major, minor, patch) GLESAM_VERSION_TEXT_(major, minor, patch)
#define GLESAM_VERSION \
  GLESAM_VERSION_TEXT(GLESAM_VERSION_MAJOR, GLESAM_VERSION_MINOR, GLESAM_VERSION_PATCH)

#endif
