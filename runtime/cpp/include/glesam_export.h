/* GLESAM_API marks the functions and classes that the library exports. A program that links the static
 * library on Windows defines GLESAM_STATIC; the CMake package does so. */
#ifndef GLESAM_EXPORT_H
#define GLESAM_EXPORT_H

#if defined(_WIN32)
#if defined(GLESAM_STATIC)
#define GLESAM_API
#elif defined(GLESAM_BUILDING)
#define GLESAM_API __declspec(dllexport)
#else
#define GLESAM_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define GLESAM_API __attribute__((visibility("default")))
#else
#define GLESAM_API
#endif

#endif
